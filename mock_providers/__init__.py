"""The export and import APIs of the providers, for demos and tests: real zips of any size, with faults on demand."""
