"""Runs template.yaml on this machine: services, Lambda runtime, HTTP API, Kafka mappings, schedules."""
