"""Header construction and retries: what the overlay adds to every generated operation."""
