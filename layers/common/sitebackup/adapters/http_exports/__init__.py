"""The export APIs, over HTTP."""
