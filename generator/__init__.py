"""Generator of the client: from the published document to a release. Never shipped."""
