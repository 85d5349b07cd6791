"""Limits of users, over HTTP: what a user is told who asks for one too many, and what stays untold of others."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import requests

from mock_providers.client import MockSite
from tests.e2e.backups import back_up
from tests.e2e.client import Json, restore_request, wait_until
from tests.e2e.stack import HELD, PART, Stack
from tests.tokens import SCOPES


def limit(stack: Stack, user_id: str, **limits: Any) -> Json:
    """Sets the exceptions of a user; the usage."""
    answer = stack.api.request("PUT", f"/users/{user_id}/limits", json=limits)
    assert answer.status_code == 200, answer.text
    usage: Json = answer.json()
    return usage


def usage(stack: Stack, user_id: str) -> Json:
    found: Json = stack.api.get(f"/users/{user_id}/usage").json()
    return found


def another_site(stack: Stack, of: MockSite, **behaviour: Any) -> MockSite:
    """Of the same user."""
    site = MockSite(stack.run.url("PROVIDERS"), "site", of.user_id, uuid.uuid4().hex[:24])
    return site.set(**{"size": 1000, **behaviour})


def ask(stack: Stack, site: MockSite) -> requests.Response:
    body = {"userId": site.user_id, "siteId": site.site_id, "providers": ["site"]}
    return stack.api.post("/backup", body)


def assert_refused(answer: requests.Response, quota: str, most: int, used: int) -> None:
    assert answer.status_code == 429, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "quota-exceeded",
        "title": "The user has as much of this as they may.",
        "status": 429,
        "detail": f"{quota}: the limit is {most}, and {used} are used.",
        "quota": quota,
        "limit": most,
        "used": used,
    }
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["RateLimit-Policy"].startswith(f'"{quota}";q={most}')
    assert answer.headers["RateLimit"].startswith(f'"{quota}";r=0')


def test_a_backup_too_many_is_refused_until_another_one_ends(stack: Stack) -> None:
    site = stack.site(**HELD)
    limit(stack, site.user_id, activeJobs=1)
    held = stack.api.create(site)
    second = another_site(stack, site)
    refused = ask(stack, second)
    assert_refused(refused, "activeJobs", 1, 1)
    assert refused.headers["Retry-After"] == "60"
    assert usage(stack, site.user_id)["activeJobs"] == {"used": 1, "limit": 1, "exception": True}
    other = stack.site()
    stack.api.done(stack.api.create(other))
    assert usage(stack, other.user_id)["activeJobs"] == {"used": 0}
    stack.api.change(held, "cancel")
    stack.api.done(stack.api.create(second))
    assert usage(stack, site.user_id)["activeJobs"]["used"] == 0


def test_a_restore_too_many_is_refused_and_a_dry_run_says_so(stack: Stack) -> None:
    backup = back_up(stack, stack.site())
    job = backup.job
    limit(stack, job["userId"], restoresPerDay=0)
    refused = stack.api.post("/restores", restore_request(job))
    assert_refused(refused, "restoresPerDay", 0, 0)
    day = 2  # seconds, in this stack
    assert refused.headers["RateLimit-Policy"] == f'"restoresPerDay";q=0;w={day}'
    assert refused.headers["RateLimit"] == f'"restoresPerDay";r=0;t={refused.headers["Retry-After"]}'
    dry = stack.api.post("/restores", restore_request(job, dryRun=True)).json()
    over = dry["overQuota"]
    assert (dry["wouldStart"], over["quota"], over["limit"]) == (False, "restoresPerDay", 0)
    assert 0 < over["retryAfter"] <= day
    limit(stack, job["userId"])
    dry = stack.api.post("/restores", restore_request(job, dryRun=True)).json()
    assert (dry["wouldStart"], "overQuota" in dry) == (True, False)
    stack.api.done(stack.api.restore(job))


@pytest.mark.parametrize(
    "way", [{}, {"noRange": True}, {"noLength": True}], ids=["ranged", "stream", "unknown"]
)
def test_an_export_with_more_bytes_than_are_left_fails_and_the_rest_is_still_there(
    stack: Stack, way: dict[str, Any]
) -> None:
    site = stack.site(size=3 * PART, **way)
    limit(stack, site.user_id, storedBytes=2 * PART)
    job = stack.api.finish(stack.api.create(site))
    assert (job["status"], job["reason"]["code"]) == ("failed", "quota_exceeded")
    assert str(2 * PART) in job["reason"]["message"]
    stack.bucket.wait_empty(job)
    assert usage(stack, site.user_id)["storedBytes"]["used"] == 0
    fits = another_site(stack, site, size=2 * PART, **way)
    stack.bucket.assert_holds(stack.api.done(stack.api.create(fits)), fits)
    assert_refused(ask(stack, another_site(stack, site)), "storedBytes", 2 * PART, 2 * PART)
    limit(stack, site.user_id, storedBytes=5 * PART)
    retry = f"/backup/{job['jobId']}/retry"  # while the clean-up is at the first attempt it is a 409
    wait_until("the retry is let through", lambda: stack.api.post(retry).status_code == 202)
    stack.bucket.assert_holds(stack.api.done(stack.api.job(job)), site)


def test_a_user_sees_their_own_usage_alone_and_sets_no_limits(stack: Stack) -> None:
    site, other = stack.site(), stack.site()
    limit(stack, site.user_id, schedules=3)
    owner = stack.as_user(stack.tokens.of(site.user_id, scope=" ".join(SCOPES)))
    assert owner.get(f"/users/{site.user_id}/usage").json() == usage(stack, site.user_id)
    refused = owner.get(f"/users/{other.user_id}/usage")
    assert (refused.status_code, refused.json()["type"]) == (403, "not-your-user")
    for user_id in (site.user_id, other.user_id):
        refused = owner.request("PUT", f"/users/{user_id}/limits", json={"schedules": 9})
        assert (refused.status_code, refused.json()["type"]) == (403, "service-only")
    assert usage(stack, site.user_id)["schedules"] == {"used": 0, "limit": 3, "exception": True}
