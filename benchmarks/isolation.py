"""Whether the time of an answer tells a user that what another has is there (I21)."""

import statistics
import time
from typing import Any

import requests

from benchmarks.transfer import Bench
from benchmarks.whole_run import SMALL_BYTES, whole_run
from local.settings import SITES_CLAIM

CALLS = 200
"""Of each pair, one of what is another's and one of what is missing, in turn."""
SCOPES = "backup:read backup:write backup:restore backup:delete"
MISSING, NOBODY = "f" * 24, "e" * 24


def measure(bench: Bench, _mib: int) -> dict[str, Any]:
    """Medians of 200 calls for each kind of answer, as a user with every scope gets them."""
    with whole_run(bench.folder / "isolation", AUTH="jwt") as run:
        job = run.backup(SMALL_BYTES, SMALL_BYTES)
        restore_id = run.restore(job)["restoreId"]
        body = {"userId": job["userId"], "cron": "weekly"}
        schedule = requests.put(f"{run.api}/sites/{job['siteId']}/schedule", json=body, timeout=30)
        schedule.raise_for_status()
        claims = {"sub": NOBODY, "scope": SCOPES, SITES_CLAIM: [job["siteId"], MISSING]}
        token = requests.post(f"{run.issuer}/token", json=claims, timeout=30).json()["access_token"]
        with requests.Session() as caller:
            caller.headers["authorization"] = f"Bearer {token}"
            pairs = [
                _pair(caller, run.user_api, method, path, there)
                for method, path, there in (
                    ("GET", "/backup/{}", job["jobId"]),
                    ("DELETE", "/backup/{}", job["jobId"]),
                    ("POST", "/backup/{}/cancel", job["jobId"]),
                    ("GET", "/backup/{}/providers/site/download", job["jobId"]),
                    ("GET", "/restores/{}", restore_id),
                    ("POST", "/restores/{}/cancel", restore_id),
                    ("GET", "/sites/{}/schedule", job["siteId"]),
                )
            ]
    worst = max(abs(found["another"] / found["missing"] - 1) for found in pairs)
    bench.say(f"isolation: medians differ by at most {worst:.1%}")
    return {"calls": CALLS, "pairs": pairs}


def _pair(caller: requests.Session, api: str, method: str, path: str, there: str) -> dict[str, Any]:
    spent: dict[str, list[float]] = {"another": [], "missing": []}
    for _ in range(CALLS):
        for name, document_id in (("another", there), ("missing", MISSING)):
            started = time.perf_counter()
            answer = caller.request(method, api + path.format(document_id), timeout=30)
            spent[name].append((time.perf_counter() - started) * 1000)
            if answer.status_code != 404:
                raise RuntimeError(f"{method} {path} of what is {name}: {answer.status_code} {answer.text}")
    medians = {name: statistics.median(found) for name, found in spent.items()}
    return {"route": f"{method} {path.format('{id}')}", **medians}
