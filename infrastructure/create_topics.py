"""Makes the application's topics on a Kafka cluster, from a machine that reaches it.

    python create_topics.py BOOTSTRAP_SERVERS [--auth iam|none] [--replicas 3] [--timeout 30]

MSK Serverless has no API for topics; this works with it and with any other Kafka. A topic that exists keeps its
settings, and a difference in its partitions is told. The exit status is 1 if a topic could not be made.
"""

import argparse
import sys
from typing import Any

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

# Partitions bound how much runs at once, and can't be reduced later. Parts are most of the work.
PARTITIONS = {
    "upload-job-created": 32,
    "upload-part-created": 128,
    "part-updated": 32,
    "task-updated": 16,
    "restore-task-created": 16,
    "drill-created": 16,
    "dead-letters": 1,
}
SECURITY: dict[str, dict[str, Any]] = {
    "iam": {"security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM"},
    "none": {},
}


def main(arguments: list[str]) -> int:
    """Creates what is missing and says so, one line a topic."""
    parser = argparse.ArgumentParser(description="Makes the topics of Site Backup on a Kafka cluster.")
    parser.add_argument("bootstrap_servers", help="host:port list, as aws kafka get-bootstrap-brokers tells")
    parser.add_argument("--auth", choices=sorted(SECURITY), default="iam")
    parser.add_argument("--replicas", type=int, default=3, help="copies of each partition (3 on Amazon MSK)")
    parser.add_argument("--timeout", type=int, default=30, help="seconds that a broker may take to answer")
    options = parser.parse_args(arguments)
    try:
        admin = KafkaAdminClient(
            bootstrap_servers=options.bootstrap_servers.split(","),
            request_timeout_ms=options.timeout * 1000,
            bootstrap_timeout_ms=options.timeout * 1000,
            **SECURITY[options.auth],
        )
    except KafkaError as error:
        print(f"No broker answers at {options.bootstrap_servers}: {error!r}", file=sys.stderr)
        return 1
    try:
        return sum(
            _create(admin, name, partitions, options.replicas) for name, partitions in PARTITIONS.items()
        )
    finally:
        admin.close()


def _create(admin: KafkaAdminClient, name: str, partitions: int, replicas: int) -> int:
    """1 if the topic can't be made."""
    try:
        admin.create_topics([NewTopic(name, partitions, replicas)])
        print(f"{name}: made with {partitions} partitions")
    except TopicAlreadyExistsError:
        found = len(admin.describe_topics([name])[0]["partitions"])
        note = "" if found == partitions else f", not {partitions}"
        print(f"{name}: is there, with {found} partitions{note}")
    except KafkaError as error:
        print(f"{name}: can't be made: {error!r}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
