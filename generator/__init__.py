"""Makes the client from the published document. Runs where the client is made, never shipped."""
