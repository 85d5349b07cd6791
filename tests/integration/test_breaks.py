"""Exports that break, pause or say nothing, and an S3 that bears no pause: the use cases on real services."""

from collections.abc import Iterator
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from local.aws_account import ACCESS_KEY, REGION, SECRET_KEY
from local.services.service import Service
from mock_providers.client import MockSite
from sitebackup.backup.create_job import CreateBackup
from sitebackup.domain.events import UploadJobCreated, UploadPartCreated
from sitebackup.domain.job import Job
from tests.builders import BY_SERVICE
from tests.e2e.s3_proxy import S3Proxy
from tests.integration.mock_server import serve
from tests.integration.real_stack import MIB, START, Stack

PART = 5 * MIB
EXPORT_TIMEOUT = 8
LONGEST_PAUSE = 0.5


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve() as url:
        yield url


@pytest.fixture
def site(url: str) -> MockSite:
    return MockSite(url, user_id=uuid4().hex[:24])


@pytest.fixture
def proxy(s3: Service) -> Iterator[S3Proxy]:
    proxy = S3Proxy((s3.host, s3.port))
    try:
        yield proxy
    finally:
        proxy.close()


@pytest.fixture
def stack(
    mongo: Service, s3: Service, proxy: S3Proxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stack]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    stack = Stack(
        mongo.address, s3.address, f"breaks{uuid4().hex[:8]}", export_url=url, s3_endpoint_url=proxy.address
    )
    begun = monotonic()
    stack.now = lambda: START + timedelta(seconds=monotonic() - begun)
    try:
        yield stack
    finally:
        stack.close()


def back_up(stack: Stack, site: MockSite) -> Job:
    """The job after all its events, and the sweeps that they need."""
    job = start(stack, site)
    for _ in range(5):
        stack.deliver()
        if stack.job(job.id).finished_at:
            break
        stack.sweep()
    return stack.job(job.id)


def start(stack: Stack, site: MockSite) -> Job:
    return stack.create_job()(
        BY_SERVICE, CreateBackup(user_id=site.user_id, site_id=site.site_id, providers=["site"]), None
    )


def check(stack: Stack, job: Job, site: MockSite) -> None:
    """It is done with the bytes of the export, and nothing lies beside them."""
    assert job.status == "done", job
    stored = job.tasks["site"].object
    assert stored is not None
    assert stack.s3 is not None
    answer = stack.s3.get_object(Bucket=stored.bucket, Key=stored.key, VersionId=stored.version_id)
    assert answer["Body"].read() == site.content
    assert "ContentEncoding" not in answer
    assert stack.at_key(job) == ([], [stored.version_id])


def path(job: Job) -> str:
    return f"/backups/{job.key('site')}"


# --- a connection that breaks


@pytest.mark.parametrize("size", [PART // 2, 3 * PART + 17], ids=["one object", "parts"])
@pytest.mark.parametrize("fault", ["truncateAt", "reset"])
def test_a_provider_that_cuts_every_connection_is_read_nearly_once(
    stack: Stack, proxy: S3Proxy, site: MockSite, fault: str, size: int
) -> None:
    faults: dict[str, Any] = {fault: {"bytes": 1_200_000}}
    site.set(size=size, **faults)
    job = back_up(stack, site)
    check(stack, job, site)
    assert job.tasks["site"].runs == 1
    assert proxy.parts[path(job)] == (-(-size // PART) if size > PART else 0), "a part was sent twice"
    if fault == "truncateAt":  # a reset throws away what the kernel holds
        assert site.stats()["bytesSent"] <= 1.02 * size


def test_a_range_that_gives_nothing_is_given_up(stack: Stack, site: MockSite) -> None:
    stack.sleep = lambda seconds: None
    site.set(size=2 * PART, truncateAt={"bytes": 0})
    job = start(stack, site)
    stack.deliver(1)
    assert [type(event) for event in stack.bag.bag] == [UploadPartCreated] * 2
    before = site.stats()["requests"]
    stack.deliver(1)
    asked = site.stats()["requests"] - before
    assert asked == 3 * 3, "3 tries in place, each with an opening and 2 more"
    task = stack.job(job.id).tasks["site"]
    assert task.last_error is not None
    assert "broke off" in task.last_error.message


def test_a_range_of_another_export_is_never_put_behind_a_break(stack: Stack, site: MockSite) -> None:
    """The second request, which would go on behind the break, is answered by another revision."""
    site.set(size=PART + 1000, truncateAt={"bytes": 1000, "times": 1}, changeContentAfter=1)
    job = back_up(stack, site)
    site.revision = 2
    check(stack, job, site)


# --- an export that says nothing


@pytest.mark.parametrize(
    "way", [{}, {"noRange": True}, {"noLength": True}], ids=["ranged", "stream", "chunked"]
)
@pytest.mark.parametrize("size", [1000, 2 * PART], ids=["one object", "parts"])
@pytest.mark.parametrize("fault", ["slowFirstByte", "hang"])
def test_an_export_that_says_nothing_ends_as_an_outcome_in_time(
    stack: Stack, site: MockSite, size: int, way: dict[str, Any], fault: str
) -> None:
    silence = {"seconds": 60} | ({"afterBytes": 10} if fault == "hang" else {})
    faults: dict[str, Any] = {fault: silence, **way}
    site.set(size=size, **faults)
    job = start(stack, site)
    event = stack.bag.bag.pop()
    assert isinstance(event, UploadJobCreated)
    left = EXPORT_TIMEOUT / 4
    begun = stack.now()
    stack.process_provider()(event, "test", begun + timedelta(seconds=left))
    took = (stack.now() - begun).total_seconds()
    assert took < 2 * left, "it waited for longer than it had"
    task = stack.job(job.id).tasks["site"]
    part_1_is_left = [event for event in stack.bag.bag if isinstance(event, UploadPartCreated)]
    stopped = [event for event in stack.bag.bag if isinstance(event, UploadJobCreated)]
    assert task.last_error or part_1_is_left or stopped, "no outcome was stored"


def test_a_part_that_says_nothing_ends_as_an_outcome_in_time(stack: Stack, site: MockSite) -> None:
    site.set(size=2 * PART)
    job = start(stack, site)
    stack.deliver(1)
    event = next(event for event in stack.bag.bag if isinstance(event, UploadPartCreated))
    site.set(size=2 * PART, hang={"afterBytes": 1000, "seconds": 60})
    left = EXPORT_TIMEOUT / 4
    begun = stack.now()
    assert not stack.upload_part()([event], begun + timedelta(seconds=left))
    assert (stack.now() - begun).total_seconds() < 2 * left, "it waited for longer than it had"
    assert stack.job(job.id).tasks["site"].last_error


# --- an S3 that drops a body which pauses


@pytest.mark.parametrize(
    ("size", "way", "requests"),
    [
        (PART // 2, {}, 1),
        (PART // 2, {"noRange": True}, 1),
        (2 * PART, {}, 3),
        (2 * PART, {"noRange": True}, 1),
        (2 * PART, {"noLength": True}, 1),
    ],
    ids=["one object", "one object without ranges", "parts", "stream", "stream of unknown size"],
)
def test_an_export_may_pause_for_longer_than_s3_bears(
    stack: Stack, proxy: S3Proxy, site: MockSite, size: int, way: dict[str, Any], requests: int
) -> None:
    """A range is asked for again; what could only be read from its start is not, as S3 does not wait for it."""
    proxy.longest_pause = LONGEST_PAUSE
    site.set(size=size, hang={"afterBytes": 1_000_000, "seconds": 3 * LONGEST_PAUSE, "times": 1}, **way)
    job = back_up(stack, site)
    check(stack, job, site)
    assert proxy.paused[path(job)] == (1 if requests > 1 else 0)
    assert site.stats()["requests"] == requests
    assert job.tasks["site"].runs == 1


# --- an S3 whose answer is lost


@pytest.mark.parametrize("way", [{}, {"noRange": True}], ids=["ranged", "stream"])
def test_an_upload_whose_answer_is_lost_is_not_left_behind(
    stack: Stack, proxy: S3Proxy, site: MockSite, way: dict[str, Any]
) -> None:
    site.set(size=PART + 1, **way)
    job = start(stack, site)
    proxy.lost_creates[path(job)] = 1
    stack.deliver()
    assert proxy.creates[path(job)] == 2
    check(stack, stack.job(job.id), site)
