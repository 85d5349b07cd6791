"""The use cases, one module each, named after the function that runs it."""
