"""Size limits: of the request, of the provider; known before or found while the stream goes on."""

from typing import Any

import pytest

from tests.e2e.client import key
from tests.e2e.stack import MEDIA_LIMIT, PART, Stack


@pytest.mark.parametrize("way", [{}, {"noRange": True}], ids=["ranged", "stream"])
@pytest.mark.parametrize("size", [PART, 3 * PART])
def test_a_size_that_is_known_is_checked_before_anything_is_stored(
    stack: Stack, size: int, way: dict[str, Any]
) -> None:
    site = stack.site(size=size, **way)
    job = stack.api.finish(stack.api.create(site, maxBytes=size - 1))
    assert (job["status"], job["reason"]["code"]) == ("failed", "size_limit_exceeded")
    assert str(size) in job["reason"]["message"]
    assert str(size - 1) in job["reason"]["message"]
    assert stack.proxy.parts[f"/backups/{key(job, 'site')}"] == 0
    assert stack.bucket.is_empty(job)


def test_a_stream_is_stopped_when_it_passes_the_limit(stack: Stack) -> None:
    site = stack.site(size=4 * PART, noLength=True)
    job = stack.api.finish(stack.api.create(site, maxBytes=2 * PART))
    assert (job["status"], job["reason"]["code"]) == ("failed", "size_limit_exceeded")
    assert "at least" in job["reason"]["message"]
    assert str(2 * PART) in job["reason"]["message"]
    stack.bucket.wait_empty(job)


def test_the_lower_limit_of_request_and_provider_counts(stack: Stack) -> None:
    of_provider = stack.site("media", MEDIA_LIMIT + 1)
    of_request = stack.site("media", PART)
    jobs = [
        (stack.api.create(of_provider, maxBytes=2 * MEDIA_LIMIT), MEDIA_LIMIT),
        (stack.api.create(of_request, maxBytes=PART - 1), PART - 1),
    ]
    for job, limit in jobs:
        job = stack.api.finish(job)
        assert (job["status"], job["reason"]["code"]) == ("failed", "size_limit_exceeded")
        assert f"limit is {limit} bytes" in job["reason"]["message"]
        assert stack.bucket.is_empty(job)


def test_an_export_may_have_exactly_the_limit(stack: Stack) -> None:
    sites = [
        stack.site(size=2 * PART),
        stack.site(size=2 * PART, noLength=True),
        stack.site("media", MEDIA_LIMIT),
    ]
    jobs = [stack.api.create(site, maxBytes=site.size) for site in sites]
    for site, job in zip(sites, jobs, strict=True):
        stack.bucket.assert_holds(stack.api.done(job), site)
