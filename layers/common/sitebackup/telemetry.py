"""Structured logs and CloudWatch metrics (embedded metric format), the same for every function."""

from typing import Any

from aws_lambda_powertools import Logger, Metrics

from .domain.events import TaskEvent

logger = Logger(service="site-backup")
metrics = Metrics(namespace="SiteBackup", service="site-backup")


def about(event: TaskEvent) -> dict[str, Any]:
    """The fields that every log line about a task carries."""
    return {"jobId": event.job_id, "taskId": event.task_id, "attempt": event.attempt}
