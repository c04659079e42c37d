"""Header construction and retries, the overlay that every generated operation gets. Imports no other room."""
