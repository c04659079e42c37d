"""The platform: what it answers, delivers and counts. Knows no HTTP."""
