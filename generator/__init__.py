"""Makes the client from the published document: select, patch, render, lock. Runs where the client is made, never shipped."""
