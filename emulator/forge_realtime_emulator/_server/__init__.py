"""The running emulator, and subscriptions to it."""
