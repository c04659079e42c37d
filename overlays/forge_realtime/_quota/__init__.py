"""Rate limits: how fast a process may call."""
