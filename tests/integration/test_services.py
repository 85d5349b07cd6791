"""The embedded services: what the functions expect is there, and data outlives kill -9 and a restart."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pymongo
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from local.paths import ROOT
from local.services.kafka import TOPICS, Kafka
from local.services.mongo import Mongo
from local.services.s3 import BUCKET, S3, s3_client
from local.services.service import HOST, Service, ServiceError


def test_kafka_has_the_topics_with_their_partitions(kafka: Service) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka.address)
    try:
        topics = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics()}
    finally:
        admin.close()
    assert {name: topics.get(name) for name in TOPICS} == TOPICS


def test_the_bucket_is_versioned_and_empty(s3: Service) -> None:
    client = s3_client(s3.address)
    assert client.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    listing = client.list_object_versions(Bucket=BUCKET, Prefix="ready")
    assert "Versions" not in listing
    assert "DeleteMarkers" not in listing


def test_wrong_credentials_are_refused(s3: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local.services.s3.SECRET_KEY", "wrong")
    client = s3_client(s3.address)
    with pytest.raises(client.exceptions.ClientError, match="SignatureDoesNotMatch"):
        client.list_objects_v2(Bucket=BUCKET)


def _restart_after_kill(service: Service) -> None:
    port = service.port
    service.kill()
    assert not service.running
    service.start()
    service.wait_ready()
    assert service.port == port


def test_kafka_keeps_records_over_kill_9(tmp_path: Path) -> None:
    broker = Kafka(tmp_path)
    try:
        broker.start()
        broker.wait_ready()
        producer = KafkaProducer(bootstrap_servers=broker.address, acks="all")
        producer.send("dead-letters", b"kept").get(10)
        producer.close()
        _restart_after_kill(broker)
        consumer = KafkaConsumer(bootstrap_servers=broker.address, auto_offset_reset="earliest")
        consumer.assign([TopicPartition("dead-letters", 0)])
        polled = consumer.poll(timeout_ms=20_000)
        consumer.close()
        assert [record.value for records in polled.values() for record in records] == [b"kept"]
    finally:
        broker.stop()


def test_mongo_keeps_documents_over_kill_9(tmp_path: Path) -> None:
    server = Mongo(tmp_path)
    try:
        server.start()
        server.wait_ready()
        with pymongo.MongoClient[dict[str, Any]](server.address) as client:
            client.shop.things.insert_one({"_id": 1})
        _restart_after_kill(server)
        with pymongo.MongoClient[dict[str, Any]](server.address) as client:
            assert client.shop.things.find_one() == {"_id": 1}
    finally:
        server.stop()


def test_s3_keeps_objects_over_kill_9_and_stop_leaves_nothing(tmp_path: Path) -> None:
    server = S3(tmp_path)
    try:
        server.start()
        server.wait_ready()
        s3_client(server.address).put_object(Bucket=BUCKET, Key="a", Body=b"kept")
        _restart_after_kill(server)
        stored = s3_client(server.address).get_object(Bucket=BUCKET, Key="a")
        assert stored["Body"].read() == b"kept"
        pid = server.pid
    finally:
        server.stop()
    assert pid is not None
    assert not psutil.pid_exists(pid)
    assert not list(Path("/tmp").glob(f"seaweedfs-*-{server.port}.sock"))


def test_a_port_in_use_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match=rf"port {port} is in use.*set MONGO_PORT to another"):
            Mongo(tmp_path, port).start()


def test_a_missing_tool_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ServiceError, match=r"secantusd-py is not installed.*make setup"):
        Mongo(tmp_path).start()


def test_a_server_that_ends_at_once_shows_its_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mongo, "command", lambda self: [sys.executable, "-c", "raise SystemExit('no disk')"])
    server = Mongo(tmp_path)
    server.start()
    with pytest.raises(ServiceError, match=r"mongo ended with code 1 while starting:\nno disk"):
        server.wait_ready(20)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux only")
def test_a_service_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from local.services.mongo import Mongo\n"
        "server = Mongo(pathlib.Path(sys.argv[1])); server.start()\n"
        "print(server.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(10)
    parent.stdin.close()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the server outlived its parent"
        time.sleep(0.02)


def test_an_interrupt_while_a_child_is_forked_is_neither_lost_nor_kept_from_the_child() -> None:
    """Python runs hooks around a fork, and drops what is raised in them."""
    script = (
        "import os, signal, subprocess, sys\n"
        "from local.services.processes import interrupts_held, take_interrupts\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it\n"
        "parent = os.getpid()\n"
        "os.register_at_fork(after_in_parent=lambda: os.kill(parent, signal.SIGINT))\n"
        "try:\n"
        "    with interrupts_held():\n"
        "        child = subprocess.Popen(['sleep', '60'], preexec_fn=take_interrupts)\n"
        "except KeyboardInterrupt:\n"
        "    child.send_signal(signal.SIGTERM)\n"
        "    print('interrupted', child.wait(20))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == (f"interrupted {-signal.SIGTERM}\n", "")
