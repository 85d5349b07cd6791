"""Automatic backups: the schedules of sites, and starting what is due."""
