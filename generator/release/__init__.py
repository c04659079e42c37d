"""Releases: version, changelog, tag, upload, pull request."""
