"""Moving bytes: readers, chunks, limits, checksums, retries within a process."""
