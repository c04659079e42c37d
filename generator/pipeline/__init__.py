"""Make the client from the pinned document."""
