"""What a run tells of itself: the metrics of a backup that is done or fails, and log lines that name their job."""

from functools import partial
from typing import Any

import pytest

from tests.e2e.client import Json, wait_until
from tests.e2e.stack import HELD, PART, Stack

OF_ANY_BACKUP = {
    "JobsCreated": "Count",
    "JobsDone": "Count",
    "BytesStored": "Bytes",
    "PartsMoved": "Count",
    "ExportLatency": "Milliseconds",
    "PartDuration": "Milliseconds",
    "StorageLatency": "Milliseconds",
}
TELLS_OF_A_TASK = ("task", "part")


def _metrics(stack: Stack, since: int) -> list[Json]:
    """In CloudWatch's embedded metric format, each metric with its unit, dimensions and values.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    found = []
    for document in stack.run.written(since):
        for directive in document.get("_aws", {}).get("CloudWatchMetrics", []):
            assert directive["Namespace"] == "SiteBackup"
            (names,) = directive["Dimensions"]
            for metric in directive["Metrics"]:
                value = document[metric["Name"]]
                values = value if isinstance(value, list) else [value]
                dimensions = {name: document[name] for name in names}
                found.append({**metric, "dimensions": dimensions, "values": values})
    return found


def _named(stack: Stack, since: int, name: str) -> list[Json]:
    return [metric for metric in _metrics(stack, since) if metric["Name"] == name]


@pytest.mark.parametrize(
    ("size", "way"),
    [(1000, {}), (2 * PART, {}), (2 * PART, {"noRange": True}), (2 * PART, {"noLength": True})],
    ids=["one object", "ranged", "stream", "stream of unknown size"],
)
def test_a_backup_that_is_done_is_measured_whichever_way_its_bytes_go(
    stack: Stack, size: int, way: dict[str, Any]
) -> None:
    stack.drain()
    since = stack.run.log_size()
    job = stack.api.done(stack.api.create(stack.site(size=size, **way)))
    for name in OF_ANY_BACKUP:
        wait_until(name, partial(_named, stack, since, name), limit=20)
    for metric in _metrics(stack, since):
        if unit := OF_ANY_BACKUP.get(metric["Name"]):
            assert metric["Unit"] == unit
            assert metric["dimensions"] == {"service": "site-backup"}
            assert all(value >= 0 for value in metric["values"])
    stored = [value for metric in _named(stack, since, "BytesStored") for value in metric["values"]]
    assert stored == [size] == [job["tasks"]["site"]["object"]["size"]]


def test_a_job_that_fails_is_counted_by_its_reason(stack: Stack) -> None:
    since = stack.run.log_size()
    failed = stack.api.finish(stack.api.create(stack.site(status={"code": 410})))
    assert failed["reason"]["code"] == "export_not_found"
    (metric,) = wait_until("JobsFailed", partial(_named, stack, since, "JobsFailed"), limit=20)
    assert metric["dimensions"]["reason"] == "export_not_found"
    assert (metric["values"], metric["Unit"]) == ([1], "Count")


def test_a_backup_that_shrank_says_so_and_is_counted(stack: Stack) -> None:
    since = stack.run.log_size()
    site = stack.site(size=PART)
    for _ in range(3):
        usual = stack.api.done(stack.api.create(site))
        assert "warning" not in usual["tasks"]["site"]
    site.set(size=1000)
    shrunk = stack.api.done(stack.api.create(site))
    assert shrunk["tasks"]["site"]["warning"]["code"] == "shrunk"
    (metric,) = wait_until("BackupsShrunk", partial(_named, stack, since, "BackupsShrunk"), limit=20)
    assert (metric["values"], metric["Unit"]) == ([1], "Count")


def test_a_log_line_names_its_job_attempt_and_task(stack: Stack) -> None:
    since = stack.run.log_size()
    done = stack.api.create(stack.site(size=2 * PART))
    waits = stack.api.create(stack.site(status={"code": 503, "times": 4}))
    fails = stack.api.create(stack.site(status={"code": 404}))
    held = stack.site(**HELD)
    again = stack.api.create(held)
    stack.api.change(again, "cancel")
    held.set(size=1000)
    stack.api.change(again, "retry")
    jobs = [stack.api.finish(job) for job in (done, waits, fails, again)]
    assert [job["status"] for job in jobs] == ["done", "done", "failed", "done"]
    ids = {job["jobId"] for job in jobs}

    def lines() -> list[Json]:
        return [line for line in stack.run.written(since) if "level" in line and line.get("jobId") in ids]

    told = {
        "job created",
        "job done",
        "job failed",
        "job cancelled",
        "job retried",
        "task done",
        "task waits",
    }
    wait_until(
        f"lines for {', '.join(sorted(told))}",
        lambda: told <= {line["message"] for line in lines()},
        limit=20,
    )
    for line in lines():
        assert line["attempt"] in ((1, 2) if line["jobId"] == again["jobId"] else (1,)), line
        assert "function_request_id" in line, line
        if line["message"].startswith(TELLS_OF_A_TASK):
            assert line["taskId"] == f"{line['jobId']}/site", line
    assert {line["attempt"] for line in lines() if line["jobId"] == again["jobId"]} == {1, 2}
