"""Version, changelog, tag, upload, pull request."""
