"""Jobs, parts and schedules in MongoDB or Amazon DocumentDB."""
