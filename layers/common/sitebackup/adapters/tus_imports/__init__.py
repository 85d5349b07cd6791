"""The import APIs, by tus 1.0.0 over HTTP."""
