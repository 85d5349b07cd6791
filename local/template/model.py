"""What a local run serves of a SAM template: functions, Kafka mappings, routes and schedules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Function:
    """One Lambda function; timeout in seconds, memory in MB, concurrency None when not reserved."""

    name: str
    folder: str
    handler: str
    code: Path
    layers: tuple[Path, ...]
    environment: Mapping[str, str]
    timeout: int
    memory: int
    concurrency: int | None


@dataclass(frozen=True)
class KafkaMapping:
    """One event source mapping from a topic to a function; max_retries is -1 for no limit."""

    name: str
    function: str
    topic: str
    batch_size: int
    window_seconds: float
    report_item_failures: bool
    max_retries: int
    on_failure_topic: str | None
    consumer_group: str
    starting_position: str
    filters: tuple[str, ...]
    bisect: bool


@dataclass(frozen=True)
class Route:
    """One route of the HTTP API; method ANY matches every method, path $default every path."""

    method: str
    path: str
    function: str


@dataclass(frozen=True)
class Schedule:
    """A function invoked every so many seconds, with the payload or else a Scheduled Event."""

    name: str
    function: str
    every_seconds: float
    payload: Mapping[str, Any] | None


@dataclass(frozen=True)
class Cors:
    """The CORS configuration of the HTTP API; max_age in seconds."""

    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: int | None = None
    credentials: bool = False


@dataclass(frozen=True)
class Template:
    """All that a local run serves of one template; cors is None when the template sets none."""

    functions: Mapping[str, Function]
    mappings: tuple[KafkaMapping, ...]
    routes: tuple[Route, ...]
    schedules: tuple[Schedule, ...]
    cors: Cors | None
