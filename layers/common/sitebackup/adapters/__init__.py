"""The outside world: export APIs, S3, MongoDB, Kafka."""
