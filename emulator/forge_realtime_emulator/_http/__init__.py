"""HTTP and WebSocket endpoints of the platform, the console and the bridge."""
