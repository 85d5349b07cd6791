"""Measures what moving a backup costs, beside the tools that a user would take instead: `make bench`."""
