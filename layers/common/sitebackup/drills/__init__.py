"""Drills: use cases that open stored backups, to prove that they could be restored."""
