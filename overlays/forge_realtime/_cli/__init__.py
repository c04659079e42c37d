"""The command line `forge-realtime`."""
