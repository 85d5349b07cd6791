"""Starts and stops the real servers that the functions need: Kafka, MongoDB's protocol, S3, mock providers.

All parts come from PyPI, and Kafka's jars from Maven Central on the first run; or all run in containers.
"""
