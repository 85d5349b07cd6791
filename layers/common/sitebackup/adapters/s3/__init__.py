"""Backups in S3."""
