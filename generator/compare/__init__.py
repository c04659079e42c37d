"""Comparison of two clients and of the documents that they were made from."""
