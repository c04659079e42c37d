"""Clients for the named Realtime operations."""
