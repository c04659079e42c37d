"""The published document: fetching and pinning it."""
