"""Backups: one use case a module, and what they share."""
