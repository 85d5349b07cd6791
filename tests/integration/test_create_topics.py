"""The script that makes the topics of a deployment, on a real broker."""

import subprocess
import sys
from pathlib import Path

from kafka import KafkaAdminClient

from local.services.kafka import Kafka
from local.services.processes import free_port

SCRIPT = Path(__file__).parents[2] / "infrastructure/create_topics.py"


def create_topics(address: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), address, "--auth", "none", "--replicas", "1", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def partitions(admin: KafkaAdminClient) -> dict[str, int]:
    return {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}


def test_missing_topics_are_made_and_others_are_left_alone(tmp_path: Path) -> None:
    broker = Kafka(tmp_path)  # one of its own: it starts with the topics of a local run
    try:
        broker.start()
        broker.wait_ready()
        admin = KafkaAdminClient(bootstrap_servers=broker.address)
        before = partitions(admin)
        admin.delete_topics(["upload-part-created"])
        first, second = create_topics(broker.address), create_topics(broker.address)
        after = partitions(admin)
        admin.close()
    finally:
        broker.stop()
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "upload-part-created: made with 128 partitions" in first.stdout
    assert "upload-part-created: is there, with 128 partitions\n" in second.stdout
    assert "part-updated: is there, with 4 partitions, not 32" in first.stdout
    assert after == {**before, "upload-part-created": 128}


def test_a_broker_that_does_not_answer_is_told() -> None:
    result = create_topics(f"127.0.0.1:{free_port()}", "--timeout", "2")
    assert result.returncode == 1
    assert "No broker answers at 127.0.0.1:" in result.stderr
