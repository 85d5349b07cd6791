"""What proves that a backup comes back, in the whole local run: its drill, then its record from the bucket alone."""

import json
import time
import uuid
from datetime import UTC, datetime
from typing import Any

import pymongo
import requests

from local.lambda_runtime.client import lambda_client

SCHEDULES = 1000
"""A page of the copy that is saved."""
LIMIT_SECONDS = 600
DATABASE = "sitebackup"
DONE = {"kind": "backup", "status": "done"}


def prove(api: str, functions: str, mongo: str, job: dict[str, Any]) -> float:
    """Opens the backup, then loses the records and gets them back; the seconds of its drill.

    Raises RuntimeError if anything does not end as it must.
    """
    seconds = _drill(api, job)
    client = lambda_client(functions, read_timeout=LIMIT_SECONDS)

    def invoke(name: str, event: dict[str, Any]) -> dict[str, Any]:
        answer = client.invoke(FunctionName=name, Payload=json.dumps(event).encode())
        return dict(json.loads(answer["Payload"].read()))

    invoke("RunDrillsFunction", {})
    requests.get(f"{api}/drills", timeout=30).raise_for_status()
    with pymongo.MongoClient[dict[str, Any]](mongo) as records:
        _schedule(api, job, records)
        _expect(invoke("SaveSettingsFunction", {}), saved=SCHEDULES)
        time.sleep(2)  # the copy has to be older than the loss, by S3's clock in seconds
        lost_at, jobs = datetime.now(UTC), records[DATABASE]["jobs"].count_documents(DONE)
        for name in ("jobs", "schedules", "sites"):
            records[DATABASE][name].delete_many({})
    rebuilt = invoke("RebuildCatalogFunction", {"before": lost_at.isoformat()})
    _expect(rebuilt, jobs=jobs, schedules=SCHEDULES, leftOut=[], marker=None)
    _expect(invoke("CheckCatalogFunction", {}), folders=jobs, differences=[], marker=None)
    return seconds


def _drill(api: str, job: dict[str, Any]) -> float:
    url, began = f"{api}/backup/{job['jobId']}", time.monotonic()
    requests.post(f"{url}/verify", timeout=30).raise_for_status()
    while True:
        tasks = requests.get(url, timeout=30).json()["tasks"].values()
        states = [task.get("drill", {}).get("state") for task in tasks]
        if None not in states:
            break
        if time.monotonic() > began + LIMIT_SECONDS:
            raise RuntimeError("the backup was not opened")
        time.sleep(0.1)
    if set(states) != {"ok"}:
        raise RuntimeError(f"the backup does not open: {states}")
    return time.monotonic() - began


def _schedule(api: str, job: dict[str, Any], records: pymongo.MongoClient[dict[str, Any]]) -> None:
    """The same schedule for many sites; none of them comes due."""
    body = {"userId": job["userId"], "cron": "0 0 1 1 *", "expiresAfterDays": 30}
    requests.put(f"{api}/sites/{job['siteId']}/schedule", json=body, timeout=30).raise_for_status()
    schedules = records[DATABASE]["schedules"]
    one = schedules.find_one({}) or {}
    sites = [uuid.uuid4().hex[:24] for _ in range(SCHEDULES - 1)]
    schedules.insert_many({**one, "_id": one["userId"] + site, "siteId": site} for site in sites)


def _expect(answer: dict[str, Any], **fields: Any) -> None:
    found = {name: answer.get(name) for name in fields}
    if found != fields:
        raise RuntimeError(f"{found} and not {fields}: {answer}")
