"""Fetch and pin the published document."""
