"""The way back: download links and restores."""
