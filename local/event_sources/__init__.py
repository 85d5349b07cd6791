"""What invokes functions besides HTTP: Kafka event source mappings and EventBridge schedules."""
