"""Streams: many small updates in few publishes."""
