"""The local run on its own services, with its own defaults: little work when idle, nothing left when stopped."""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from local.lambda_runtime.client import lambda_client
from local.settings import free_ports
from mock_providers.client import MockSite
from tests.e2e.client import FINAL, Api, Bucket, wait_until
from tests.e2e.run import Run
from tests.e2e.stack import HELD

ATTEMPT_SECONDS = 6
MEASURED_SECONDS = 5
PART = 16 << 20
LARGEST = 3 * PART


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Everything as `make up` starts it, but for the ports, two limits and the grace of uploads."""
    environment = {
        "PARAM_MaxBytes": str(LARGEST),
        "PARAM_AttemptSeconds": str(ATTEMPT_SECONDS),
        "PARAM_UploadGraceSeconds": "1",
        "MOCK_PROVIDERS_DEFAULT_SIZE": "site=1MiB,db=1MiB",
    }
    local = Run(tmp_path_factory.mktemp("embedded"), free_ports(), environment)
    try:
        local.start()
        yield local
    finally:
        local.stop()  # fails if any process is left


def _site(run: Run, size: int = 1 << 20, **faults: Any) -> MockSite:
    return MockSite(run.url("PROVIDERS"), "site", uuid.uuid4().hex[:24]).set(size=size, **faults)


def test_an_idle_run_uses_next_to_no_processor(run: Run) -> None:
    api, bucket = Api(run.url("API")), Bucket(run.url("S3"))
    site = _site(run, 2 * PART + 1)
    bucket.assert_holds(api.done(api.create(site)), site)
    wait_until("nothing is under way", lambda: all(one["in_flight"] == 0 for one in run.mappings()))
    services = set(run.state()["services"].values())
    processes = run.processes()
    assert services < {process.pid for process in processes}
    before = [_seconds(process) for process in processes]
    started = time.monotonic()
    time.sleep(MEASURED_SECONDS)  # not a wait for anything: the span that is measured
    used = [_seconds(process) - then for process, then in zip(processes, before, strict=True)]
    span = time.monotonic() - started
    whole = sum(used) / span
    own = sum(one for process, one in zip(processes, used, strict=True) if process.pid not in services) / span
    print(f"idle, of one processor core: {own:.1%}, with Kafka, MongoDB's protocol and S3 {whole:.1%}")
    assert own < 0.1, f"{own:.0%} of a processor core"
    assert whole < 0.25, f"{whole:.0%} of a processor core with the services"


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@pytest.mark.parametrize("way", [{}, {"noRange": True}], ids=["ranged", "stream"])
def test_no_request_may_have_more_than_the_limit_of_the_service(run: Run, way: dict[str, Any]) -> None:
    api, bucket = Api(run.url("API")), Bucket(run.url("S3"))
    for request in ({}, {"maxBytes": 2 * LARGEST}):
        job = api.finish(api.create(_site(run, LARGEST + 1, **way), **request))
        assert (job["status"], job["reason"]["code"]) == ("failed", "size_limit_exceeded")
        assert f"{LARGEST + 1} bytes; the limit is {LARGEST} bytes" in job["reason"]["message"]
        assert bucket.is_empty(job)


def test_what_is_not_finished_in_time_fails_as_timed_out(run: Run) -> None:
    """Two sweeps at once time each attempt out once; the retry is another attempt with its own time."""
    api, bucket = Api(run.url("API")), Bucket(run.url("S3"))
    waiting = _site(run, **HELD)
    ranged = _site(run, 3 * PART, drip={"bytesPerSecond": 1000})
    stream = _site(run, 3 * PART, noLength=True, drip={"bytesPerSecond": 1000})
    jobs = [api.create(site) for site in (waiting, ranged, stream)]
    sweep = lambda_client(run.url("LAMBDA"), read_timeout=60)

    def swept() -> bool:
        with ThreadPoolExecutor(2) as pool:
            for _ in range(2):
                pool.submit(sweep.invoke, FunctionName="SweepJobsFunction", Payload=b"{}")
        return all(api.job(job)["status"] in FINAL for job in jobs)

    wait_until("the attempts are over", swept)
    for job in map(api.job, jobs):
        assert (job["status"], job["reason"]["code"]) == ("failed", "timed_out"), job
        assert f"{ATTEMPT_SECONDS} seconds" in job["reason"]["message"]
        assert job["tasks"]["site"]["reason"]["code"] == "timed_out"
        assert job["finishedAt"] >= api.job(job)["createdAt"]
    wait_until("nothing is left", lambda: swept() and all(map(bucket.is_empty, jobs)))
    for site in (waiting, ranged, stream):
        site.set(size=1 << 20)
    for site, job in zip((waiting, ranged, stream), jobs, strict=True):
        again = api.change(job, "retry")
        assert again["deadlineAt"] > job["deadlineAt"]
        bucket.assert_holds(api.done(again), site)
