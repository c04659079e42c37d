"""Clients for any generated operation."""
