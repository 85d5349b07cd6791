"""Structured logs and CloudWatch metrics (embedded metric format), the same for every function."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from time import perf_counter
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit

from .domain.task_ref import AnyTaskRef

logger = Logger(service="site-backup")
metrics = Metrics(namespace="SiteBackup", service="site-backup")

# Most invocations that read have nothing to count; each new environment would say so.
warnings.filterwarnings("ignore", message="No application metrics to publish")

_counting = Lock()


def count(name: str, value: float = 1, unit: MetricUnit = MetricUnit.Count) -> None:
    """Adds to a metric of this invocation; parts are moved by several threads."""
    with _counting:
        metrics.add_metric(name, unit, value)


@contextmanager
def timed(name: str) -> Iterator[None]:
    """Adds the milliseconds that the block took, whether it worked or not."""
    started = perf_counter()
    try:
        yield
    finally:
        count(name, (perf_counter() - started) * 1000, MetricUnit.Milliseconds)


def log_context(ref: AnyTaskRef) -> dict[str, Any]:
    """The fields that every log line about a task carries."""
    return {**ref.correlation, "attempt": ref.attempt}
