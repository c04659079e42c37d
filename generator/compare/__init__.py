"""Compare two clients and the documents they were made from."""
