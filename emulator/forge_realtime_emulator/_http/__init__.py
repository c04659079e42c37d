"""HTTP and WebSocket routes around the platform."""
