"""The whole API, called as docs/openapi.json describes it, rightly and wrongly: every answer is as described there.

Schemathesis makes the requests and judges the answers. Each route is first seen to succeed, on real things in the
state that it needs, whose ids the valid requests that follow mostly name.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, CheckFunction, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from local.settings import SITES_CLAIM
from mock_providers.client import MockSite
from tests.e2e.client import Api, Json
from tests.e2e.stack import HELD, Stack

ROOT = Path(__file__).parents[2]
DOCUMENT: Json = json.loads((ROOT / "docs/openapi.json").read_text())
SCHEMA = schemathesis.openapi.from_dict(
    DOCUMENT, config=schemathesis.Config.from_dict({"generation": {"with-security-parameters": False}})
)
KEYS = sorted(
    (f"{method.upper()} {path}" for path, item in DOCUMENT["paths"].items() for method in item),
    key=lambda key: (key.startswith("DELETE"), key),
)
"""What deletes comes last."""
VALID, INVALID = 10, 6
"""So many requests a route."""
REFUSING = {"refuse": {"POST": {"code": 503, "retryAfter": 60}}}
"""An import API whose restores stay running."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


class World:
    """What one user has. Whoever calls for them, each route finds something in the state that it needs."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.user_id = stack, uuid.uuid4().hex[:24]
        self.sites: list[str] = []
        self.done = stack.api.done(stack.api.create(self.site()))

    def site(self, **faults: Any) -> MockSite:
        """A new one."""
        self.sites.append(uuid.uuid4().hex[:24])
        providers = self.stack.run.url("PROVIDERS")
        return MockSite(providers, "site", self.user_id, self.sites[-1]).set(size=1000, **faults)

    def ids(self, key: str) -> dict[str, list[str]]:
        """What there is for a route, what it is about first. Limits that a call has set end here."""
        answer = self.stack.api.request("PUT", f"/users/{self.user_id}/limits", json={})
        assert answer.status_code == 200, answer.text
        job, restore = self.done, self.done
        match key.partition(" ")[2].rpartition("/")[2], key.partition(" ")[2].split("/")[1]:
            case ("retry" | "cancel" | "undelete" as last, "backup"):
                job = self._job(last)
            case ("{jobId}", "backup") if key.startswith("DELETE"):
                job = self._job("retry")
            case ("{restoreId}" | "retry" | "cancel" as last, "restores"):
                restore = self._restore(last)
            case ("backup", _):
                self.site()
            case ("schedule" | "pause" | "resume", _):
                path = f"/sites/{job['siteId']}/schedule"
                answer = self.stack.api.request("PUT", path, json={"userId": self.user_id})
                assert answer.status_code == 200, answer.text
        mine = self.sites[-1] if key == "POST /backup" else job["siteId"]
        return {
            "userId": [self.user_id],
            "siteId": [mine, self.done["siteId"]],
            "targetSiteId": [self.site().site_id],
            "jobId": [job["jobId"], self.done["jobId"]],
            "restoreId": [restore.get("restoreId", job["jobId"])],
            "provider": ["site"],
        }

    def _job(self, last: str) -> Json:
        """One that can be retried, cancelled or undeleted."""
        job = self.stack.api.create(self.site(**HELD))
        if last != "cancel":
            job = self.stack.api.change(job, "cancel")
        if last == "undelete":
            answer = self.stack.api.request("DELETE", f"/backup/{job['jobId']}")
            assert answer.status_code == 202, answer.text
        return job

    def _restore(self, last: str) -> Json:
        """One that runs or, to be retried, was cancelled."""
        target = self.site(imports=REFUSING)
        restore = self.stack.api.restore(self.done, targetSiteId=target.site_id)
        return self.stack.api.change(restore, "cancel") if last == "retry" else restore


def plain(key: str, ids: dict[str, list[str]]) -> list[Case[Any]]:
    """The requests that succeed: of the description's example, about what there is, with its flags on and off."""
    method, _, path = key.partition(" ")
    operation = DOCUMENT["paths"][path][method.lower()]
    named = [each for each in operation.get("parameters", []) if each["name"] in ids]
    of_path, of_query = (
        {each["name"]: ids[each["name"]][0] for each in named if each["in"] == where}
        for where in ("path", "query")
    )
    make = partial(SCHEMA[path][method].Case, path_parameters=of_path, query=of_query)
    if "requestBody" not in operation:
        return [make()]
    (media,) = operation["requestBody"]["content"].values()
    body = DOCUMENT["components"]["schemas"][media["schema"]["$ref"].rpartition("/")[2]]
    example = {name: ids.get(name, [value])[0] for name, value in body["examples"][0].items()}
    flags = [name for name, each in body["properties"].items() if each.get("type") == "boolean"]
    return [
        make(body=example | dict.fromkeys(flags, flag), media_type="application/json")
        for flag in ((True, False) if flags else (True,))
    ]


@st.composite
def cases(draw: st.DrawFn, key: str, mode: GenerationMode, ids: dict[str, list[str]]) -> Case[Any]:
    """A request, whose ids are mostly those of `ids` if it is valid."""
    method, _, path = key.partition(" ")
    case = draw(SCHEMA[path][method].as_strategy(generation_mode=mode))
    if mode is GenerationMode.POSITIVE:
        for values in (case.path_parameters, case.query, case.body):
            if isinstance(values, dict):
                for name in sorted(values.keys() & ids.keys()):
                    if draw(st.integers(0, 3)):
                        values[name] = draw(st.sampled_from(ids[name]))
        if "wait" in case.query:
            case.query["wait"] = draw(st.integers(0, 1))
    return case


class Caller:
    """Calls an API, and fails with the request and with what of its answer is not as described."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.seen: Counter[int] = Counter()
        """Answers, by status."""

    def call(self, case: Case[Any], *more: CheckFunction) -> None:
        session = self._api.session
        answer = case.call(base_url=self._api.url, session=session, allow_redirects=False, timeout=60)
        self.seen[answer.status_code] += 1
        case.validate_response(answer, checks=[*CHECKS, *more])

    def call_often(self, key: str, mode: GenerationMode, ids: dict[str, list[str]]) -> None:
        more = [negative_data_rejection] if mode is GenerationMode.NEGATIVE else []

        @settings(
            max_examples=VALID if mode is GenerationMode.POSITIVE else INVALID,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases(key, mode, ids))
        def every_answer_is_as_described(case: Case[Any]) -> None:
            self.call(case, *more)

        every_answer_is_as_described()


def test_whoever_may_read_gets_the_description_while_mongodb_is_down(stack: Stack) -> None:
    reader = stack.as_user(stack.tokens.of(uuid.uuid4().hex[:24], scope="backup:read"))
    with stack.down(stack.mongo):
        for api in (stack.api, reader):
            answer = api.get("/openapi.json")
            assert (answer.status_code, answer.json()) == (200, DOCUMENT)
            assert answer.headers["content-type"] == "application/json"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("caller", ["service", "user"])
def test_every_answer_is_as_described(
    stack: Stack, caller: str, record_property: Callable[[str, object], None]
) -> None:
    world, total = World(stack), Counter[int]()
    for key in KEYS:
        method, _, path = key.partition(" ")
        operation = DOCUMENT["paths"][path][method.lower()]
        ids = world.ids(key)
        claims = {SITES_CLAIM: world.sites}
        who = Caller(
            stack.api if caller == "service" else stack.as_user(stack.tokens.of(world.user_id, **claims))
        )
        for case in plain(key, ids):
            who.call(case)
        if len(operation["security"]) == 2 or caller == "service":
            assert who.seen.keys() == {int(status) for status in operation["responses"] if status < "400"}, (
                key
            )
        who.call_often(key, GenerationMode.POSITIVE, ids)
        if "parameters" in operation or "requestBody" in operation:
            who.call_often(key, GenerationMode.NEGATIVE, ids)
        total += who.seen
    told = ", ".join(f"{count} x {status}" for status, count in sorted(total.items()))
    record_property("principals", [f"a {caller}, as docs/openapi.json describes", total.total(), told])
