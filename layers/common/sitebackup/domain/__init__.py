"""What a backup is and which changes it may go through. Pure: no I/O, no clock, no randomness."""
