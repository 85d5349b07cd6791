"""The bucket as the source of the records: rebuilt from it, compared with it, and given what it lacks."""
