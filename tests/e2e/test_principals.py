"""Every route of the template, called by others than the owner: nobody reaches what is not theirs (I21).

The routes come from the template, and their scopes from docs/api.md: one that is new can't be forgotten.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from local.settings import SITES_CLAIM
from local.template.model import Route
from local.template.reader import load
from tests.e2e.backups import back_up
from tests.e2e.client import Api, Json
from tests.e2e.stack import Stack
from tests.integration.test_tokens import ATTACKS
from tests.tokens import SCOPES

ROOT = Path(__file__).parents[2]
PARAMETERS = {
    "Providers": "[]",
    "KafkaBootstrapServers": "127.0.0.1:1",
    "MskClusterArn": "arn:aws:kafka:us-east-1:123456789012:cluster/local/local",
}
ROUTES = {f"{route.method} {route.path}": route for route in load(ROOT / "template.yaml", PARAMETERS).routes}
SCOPE_OF = dict(
    re.findall(
        r"^\| `([A-Z]+ /[^`]*)` \| `(backup:\w+)` \|", (ROOT / "docs/api.md").read_text(), re.MULTILINE
    )
)
MISSING = "f" * 24
NOBODY = "e" * 24


@dataclass(frozen=True)
class Belongings:
    """What user A has: a done backup, a done restore and a schedule of one site."""

    user_id: str
    site_id: str
    job_id: str
    restore_id: str

    def ids(self) -> dict[str, str]:
        """For the variables of a path; a route with another one needs an object of A here."""
        return {
            "jobId": self.job_id,
            "restoreId": self.restore_id,
            "siteId": self.site_id,
            "userId": self.user_id,
            "provider": "site",
        }

    def body(self, key: str, user_id: str) -> Json | None:
        """What a route needs, asked for this user."""
        ids = {"userId": user_id, "siteId": self.site_id}
        bodies: dict[str, Json] = {
            "POST /backup": {**ids, "providers": ["site"]},
            "POST /restores": {**ids, "jobId": self.job_id, "providers": "all", "safetyBackup": False},
            "POST /backup/{jobId}/download": {"provider": "site"},
            "PUT /sites/{siteId}/schedule": {"userId": user_id},
            "PUT /users/{userId}/limits": {},
        }
        return bodies.get(key)

    def all_ids(self) -> set[str]:
        return {self.user_id, self.site_id, self.job_id, self.restore_id}


COVERAGE = "GET /drills"
"""A user asks it about one site, which the query names."""
DESCRIPTION = "GET /openapi.json"
"""It is the same for everybody who may see anything."""
LISTS = {key for key, route in ROUTES.items() if "{" not in route.path and route.method == "GET"} - {
    COVERAGE,
    DESCRIPTION,
}
USAGE = "GET /users/{userId}/usage"
"""It is about a user, whom the path names, and not about a site."""
SERVICE_ONLY = {
    *("POST /backup/{jobId}/legal-hold", "DELETE /backup/{jobId}/legal-hold"),
    "PUT /users/{userId}/limits",
}
"""Users are told so, whatever they ask it of."""
NAMES_USER_IN_BODY = {"POST /backup", "POST /restores", "PUT /sites/{siteId}/schedule"}


@pytest.fixture(scope="module")
def mine(stack: Stack) -> Belongings:
    backup = back_up(stack, stack.site())
    restore = stack.api.done(stack.api.restore(backup.job))
    site = backup.site
    body = {"userId": site.user_id, "cron": "weekly"}
    assert stack.api.request("PUT", f"/sites/{site.site_id}/schedule", json=body).status_code == 200
    return Belongings(site.user_id, site.site_id, backup.job["jobId"], restore["restoreId"])


def call(
    api: Api,
    route: Route,
    ids: Mapping[str, str],
    body: Json | None = None,
    query: Mapping[str, str] | None = None,
) -> requests.Response:
    path = re.sub(r"\{(\w+)\}", lambda name: ids[name[1]], route.path)
    if route is ROUTES[COVERAGE]:
        query = {"siteId": ids["siteId"], **(query or {})}
    return api.request(route.method, path, json=body, params=query, allow_redirects=False)


def another(stack: Stack, mine: Belongings) -> Api:
    """User B, whose token is for A's site as well: nothing but the user keeps them away."""
    return stack.as_user(stack.tokens.of(NOBODY, **{SITES_CLAIM: [mine.site_id, MISSING]}))


def refusal(key: str) -> tuple[int, str]:
    """What a user is answered on what is out of reach."""
    if key == USAGE:
        return 403, "not-your-user"
    return (403, "service-only") if key in SERVICE_ONLY else (404, "not-found")


class Table:
    """Counts the answers of one kind of caller."""

    def __init__(self, who: str, record: Callable[[str, object], None]) -> None:
        self.who, self._record = who, record
        self._answers: Counter[str] = Counter()

    def add(self, answer: requests.Response) -> None:
        kind = answer.headers.get("content-type", "")
        problem = f" {answer.json()['type']}" if kind.startswith("application/problem+json") else ""
        self._answers[f"{answer.status_code}{problem}"] += 1

    def close(self) -> None:
        told = ", ".join(f"{count} x {answer}" for answer, count in sorted(self._answers.items()))
        self._record("principals", [self.who, self._answers.total(), told])


@pytest.fixture
def table(record_property: Callable[[str, object], None]) -> Callable[[str], Table]:
    return lambda who: Table(who, record_property)


def test_every_route_has_a_scope_in_the_api_description() -> None:
    assert SCOPE_OF.keys() == ROUTES.keys()
    assert set(SCOPE_OF.values()) == set(SCOPES)


def test_another_user_gets_what_a_missing_object_would_give(
    stack: Stack, mine: Belongings, table: Callable[[str], Table]
) -> None:
    """The same status, headers and body, but for the id."""
    other, found = another(stack, mine), table("user B, on what is A's")
    missing = {name: MISSING if name != "provider" else value for name, value in mine.ids().items()}
    for key, route in ROUTES.items():
        if "{" not in route.path and key != COVERAGE:
            continue
        if key == "PUT /sites/{siteId}/schedule":
            continue  # the schedule that B sets for a site is B's: see below
        body = mine.body(key, NOBODY)
        theirs, none = (call(other, route, ids, body) for ids in (mine.ids(), missing))
        found.add(theirs)
        if key == "GET /sites/{siteId}/retention":
            assert theirs.json() == none.json() == {"backups": []}, key
        else:
            assert (theirs.status_code, theirs.json()["type"]) == refusal(key), (key, theirs.text)
        assert theirs.status_code == none.status_code, key
        assert _without(theirs.text, mine.ids()) == _without(none.text, missing), key
        assert _headers(theirs) == _headers(none), key
    found.close()


def _without(text: str, ids: Mapping[str, str]) -> str:
    for name in ids.keys() - {"provider"}:
        text = text.replace(ids[name], "<id>")
    return text


def _headers(answer: requests.Response) -> dict[str, str]:
    return {
        name.lower(): value
        for name, value in answer.headers.items()
        if name.lower() not in ("date", "apigw-requestid")
    }


def test_a_restore_of_anothers_backup_is_asked_for_in_vain(stack: Stack, mine: Belongings) -> None:
    """By a user who names themselves, the site or one of their own, and the backup."""
    other = another(stack, mine)
    for changes in ({}, {"siteId": MISSING}, {"dryRun": True}, {"targetSiteId": MISSING}):
        body = {**(mine.body("POST /restores", NOBODY) or {}), **changes}
        answer = other.post("/restores", body)
        none = other.post("/restores", {**body, "jobId": MISSING})
        assert (answer.status_code, none.status_code) == (404, 404), answer.text
        assert answer.text.replace(mine.job_id, MISSING) == none.text


def test_another_user_who_names_the_owner_is_told_that_it_is_not_them(
    stack: Stack, mine: Belongings, table: Callable[[str], Table]
) -> None:
    other, found = another(stack, mine), table("user B, who names A")
    for key, route in ROUTES.items():
        if key in NAMES_USER_IN_BODY:
            answer = call(other, route, mine.ids(), mine.body(key, mine.user_id))
        elif key in {*LISTS, COVERAGE} or route.path.startswith("/sites/"):
            answer = call(other, route, mine.ids(), query={"userId": mine.user_id})
        else:
            continue
        found.add(answer)
        assert (answer.status_code, answer.json()["type"]) == (403, "not-your-user"), (key, answer.text)
        assert answer.json()["detail"].startswith("userId: ")
    found.close()


def test_no_list_holds_anything_of_another_user(
    stack: Stack, mine: Belongings, table: Callable[[str], Table]
) -> None:
    others = {
        "user B": another(stack, mine),
        "user A, for another site": stack.as_user(stack.tokens.of(mine.user_id, **{SITES_CLAIM: [MISSING]})),
        "user A, for no site": stack.as_user(stack.tokens.of(mine.user_id, **{SITES_CLAIM: []})),
        "user A, without the claim of sites": stack.as_user(stack.tokens.of(mine.user_id)),
    }
    for who, api in others.items():
        found = table(f"{who}: lists")
        for key in sorted(LISTS):
            for query in ({}, {"limit": "100"}):
                answer = call(api, ROUTES[key], {}, query=query)
                found.add(answer)
                assert answer.status_code == 200, (key, answer.text)
                (listed,) = answer.json().values()
                assert listed == [], (who, key)
        found.close()
    assert {"GET /backup", "GET /restores", "GET /schedules"} <= LISTS


def test_a_token_for_other_sites_gets_what_a_missing_object_would_give(
    stack: Stack, mine: Belongings, table: Callable[[str], Table]
) -> None:
    """Also where it would make something for the site."""
    narrow = stack.as_user(stack.tokens.of(mine.user_id, **{SITES_CLAIM: [MISSING]}))
    found = table("user A, with a token for another site")
    for key, route in ROUTES.items():
        if key in {*LISTS, DESCRIPTION}:
            continue
        answer = call(narrow, route, mine.ids(), mine.body(key, mine.user_id))
        found.add(answer)
        if key == "GET /sites/{siteId}/retention":
            assert answer.json() == {"backups": []}
        elif key == USAGE:
            assert answer.json()["schedules"] == {"used": 1}, "it is about the user, all sites together"
        else:
            assert (answer.status_code, answer.json()["type"]) == refusal(key), (key, answer.text)
    found.close()


def test_a_schedule_of_the_same_site_id_is_another_users_own(stack: Stack, mine: Belongings) -> None:
    other, path = another(stack, mine), f"/sites/{mine.site_id}/schedule"
    before = stack.api.get(path, userId=mine.user_id).json()
    body = {"userId": NOBODY, "cron": "daily", "paused": True}
    assert other.request("PUT", path, json=body).json()["userId"] == NOBODY
    assert other.get(path).json()["cron"] == "daily"
    assert stack.api.get(path, userId=mine.user_id).json() == before
    assert other.request("DELETE", path).status_code == 204
    assert stack.api.get(path, userId=mine.user_id).json() == before


def test_an_idempotency_key_of_another_user_says_nothing(stack: Stack) -> None:
    key = {"Idempotency-Key": "nightly"}
    first, second = stack.site(), stack.site()
    jobs = set()
    for site in (first, second):
        user = stack.as_user(stack.tokens.of(site.user_id, **{SITES_CLAIM: [site.site_id]}))
        body = {"userId": site.user_id, "siteId": site.site_id, "providers": ["site"]}
        answer = user.post("/backup", body, headers=key)
        assert answer.status_code == 202, answer.text
        assert user.post("/backup", body, headers=key).json()["jobId"] == answer.json()["jobId"]
        jobs.add(answer.json()["jobId"])
    assert len(jobs) == 2


@pytest.mark.parametrize("scope", SCOPES)
def test_without_its_scope_a_route_is_closed_to_the_owner_too_and_the_answer_names_it(
    stack: Stack, mine: Belongings, table: Callable[[str], Table], scope: str
) -> None:
    others = " ".join(name for name in SCOPES if name != scope)
    owner, found = (
        stack.as_user(stack.tokens.of(mine.user_id, scope=others)),
        table(f"user A, without {scope}"),
    )
    for key in (key for key in ROUTES if SCOPE_OF[key] == scope):
        answer = call(owner, ROUTES[key], mine.ids(), mine.body(key, mine.user_id))
        found.add(answer)
        assert (answer.status_code, answer.json()["type"]) == (403, "missing-scope"), (key, answer.text)
        assert answer.json()["scope"] == scope
        assert scope in answer.json()["detail"]
    found.close()


@pytest.mark.parametrize("attack", [*ATTACKS, "no header"])
def test_a_token_that_is_not_right_opens_no_route(
    stack: Stack, mine: Belongings, table: Callable[[str], Table], attack: str
) -> None:
    found = table(f"user A's token: {attack}")
    api = (
        Api(stack.run.url("USER_API"))
        if attack == "no header"
        else stack.as_user(stack.tokens.attacks(mine.user_id)[attack])
    )
    for key, route in ROUTES.items():
        answer = call(api, route, mine.ids(), mine.body(key, mine.user_id))
        found.add(answer)
        assert (answer.status_code, answer.json()) == (401, {"message": "Unauthorized"}), key
        assert not any(one in answer.text for one in mine.all_ids())
    found.close()


@pytest.mark.parametrize("subject", ["somebody", "A" * 24, None])
def test_a_token_of_no_user_opens_no_route(
    stack: Stack, mine: Belongings, table: Callable[[str], Table], subject: str | None
) -> None:
    api = stack.as_user(stack.tokens.ask({"sub": subject, "scope": " ".join(SCOPES)}))
    found = table(f"a token whose subject is {subject!r}")
    for key, route in ROUTES.items():
        answer = call(api, route, mine.ids(), mine.body(key, mine.user_id))
        found.add(answer)
        assert (answer.status_code, answer.json()["type"]) == (403, "no-user"), (key, answer.text)
    found.close()


def test_the_owner_gets_through_with_the_scope_of_each_route_alone(
    stack: Stack, mine: Belongings, table: Callable[[str], Table]
) -> None:
    """The last one here, as it deletes: what others were refused is really there and would have been done."""
    found = table("user A, with the scope of the route alone")
    for key in sorted(ROUTES, key=lambda key: (ROUTES[key].method == "DELETE", key)):
        claims: dict[str, Any] = {"scope": SCOPE_OF[key], SITES_CLAIM: [mine.site_id]}
        owner = stack.as_user(stack.tokens.of(mine.user_id, **claims))
        answer = call(owner, ROUTES[key], mine.ids(), mine.body(key, mine.user_id))
        found.add(answer)
        if key in SERVICE_ONLY:
            assert (answer.status_code, answer.json()["type"]) == refusal(key), (key, answer.text)
            continue
        assert answer.status_code in (200, 202, 204, 302, 409), (key, answer.text)
        if key in LISTS:
            assert any(answer.json().values()), key
    found.close()
