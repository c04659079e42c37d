"""Connections: bytes on the wire."""
