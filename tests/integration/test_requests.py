"""Every route of the template on a real Mongo: its real handler is driven with good and bad requests."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import MongoClient

from local.services.service import Service
from local.template.model import Function, Route
from local.template.reader import load
from sitebackup.adapters.production import ProductionAdapters
from tests.fakes.bus import MemoryBus
from tests.integration.real_stack import an_id

ROOT = Path(__file__).parents[2]
PARAMETERS = {
    "Providers": json.dumps(
        [{"name": name, "exportUrl": "http://127.0.0.1:1/export"} for name in ("site", "db")]
    ),
    "BackupBucketName": "backups",
    "KafkaBootstrapServers": "127.0.0.1:1",
    "KafkaAuth": "none",
    "MongoUri": "mongodb://127.0.0.1:1",
    "MskClusterArn": "arn:aws:kafka:us-east-1:123456789012:cluster/local/local",
}
TEMPLATE = load(ROOT / "template.yaml", PARAMETERS)
ROUTES = {f"{route.method} {route.path}": route for route in TEMPLATE.routes}
QUERIES = {
    "GET /backup": {"siteId", "userId", "status", "limit", "cursor"},
    "GET /backup/{jobId}": {"wait", "since"},
    "DELETE /backup/{jobId}": {"at"},
    "POST /backup/{jobId}/download": {"damaged"},
    "GET /backup/{jobId}/providers/{provider}/download": {"damaged"},
    "GET /drills": {"userId", "siteId"},
    "GET /schedules": {"userId", "limit", "cursor"},
    "GET /sites/{siteId}/schedule": {"userId"},
    "DELETE /sites/{siteId}/schedule": {"userId"},
    "POST /sites/{siteId}/schedule/pause": {"userId"},
    "POST /sites/{siteId}/schedule/resume": {"userId"},
    "GET /sites/{siteId}/retention": {"userId", "limit", "cursor"},
}
DATABASE = "test-requests"
SERVICE: dict[str, Any] = {"iam": {"userArn": "arn:aws:iam::123456789012:user/tests"}}
FAR = "9999-12-31T23:59:59Z"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Handlers:
    """The functions behind the HTTP API, in this process."""

    def __init__(self, mongo: Service, patch: pytest.MonkeyPatch) -> None:
        self._database = MongoClient[dict[str, Any]](mongo.address)[DATABASE]
        bus = MemoryBus()
        patch.setattr(ProductionAdapters, "bus", property(lambda _: bus))
        self._modules: dict[str, ModuleType] = {}
        for name in {route.function for route in TEMPLATE.routes}:
            function = TEMPLATE.functions[name]
            for variable, value in function.environment.items():
                patch.setenv(variable, value)
            patch.setenv("MONGO_URI", mongo.address)
            patch.setenv("MONGO_DATABASE", DATABASE)
            self._modules[name] = _load(function)
        ticks = count()  # a clock on which waiting takes no time
        reader = self._modules["GetJobFunction"]
        patch.setattr(
            reader,
            "get_job",
            replace(
                reader.get_job,
                clock=reader.get_job.clock._replace(
                    monotonic=lambda: next(ticks), sleep=lambda seconds: None
                ),
            ),
        )

    def clear(self) -> None:
        """Removes all that is stored; the indexes stay."""
        for name in ("jobs", "schedules", "limits"):
            self._database[name].delete_many({})

    def close(self) -> None:
        self._database.client.close()

    def __call__(
        self,
        route: Route,
        ids: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        caller: Any = SERVICE,
    ) -> Answer:
        """What the route answers; a body that is no text is sent as JSON, bytes go in base64."""
        path = re.sub(r"\{(\w+)\}", lambda name: (ids or {})[name[1]], route.path)
        key = f"{route.method} {route.path}"
        event: dict[str, Any] = {
            "version": "2.0",
            "routeKey": key,
            "rawPath": path,
            "rawQueryString": "",
            "headers": {"content-type": "application/json", **(headers or {})},
            "requestContext": {
                "authorizer": caller,
                "http": {"method": route.method, "path": path, "sourceIp": "127.0.0.1"},
                "routeKey": key,
                "stage": "$default",
                "requestId": "r",
            },
            "isBase64Encoded": isinstance(body, bytes),
        }
        if ids:
            event["pathParameters"] = dict(ids)
        if query:
            event["queryStringParameters"] = dict(query)
        if body is not None:
            encoded = base64.b64encode(body).decode() if isinstance(body, bytes) else body
            event["body"] = encoded if isinstance(encoded, str) else json.dumps(encoded)
        context = SimpleNamespace(
            function_name=route.function,
            memory_limit_in_mb=512,
            invoked_function_arn="arn",
            aws_request_id="r",
            get_remaining_time_in_millis=lambda: 30_000,
        )
        answer = self._modules[route.function].handler(json.loads(json.dumps(event)), context)
        return Answer(answer["statusCode"], answer.get("headers", {}), answer.get("body", ""))


def _load(function: Function) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{function.folder}_app", function.code / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def call(mongo: Service) -> Iterator[Handlers]:
    with pytest.MonkeyPatch.context() as patch:
        handlers = Handlers(mongo, patch)
        yield handlers
        handlers.close()


def good_ids(route: Route) -> dict[str, str]:
    names = re.findall(r"\{(\w+)\}", route.path)
    return {name: "site" if name == "provider" else an_id() for name in names}


def good_body(route: Route) -> dict[str, Any] | None:
    bodies: dict[str, dict[str, Any]] = {
        "POST /backup": {"userId": an_id(), "siteId": an_id()},
        "POST /backup/{jobId}/download": {"provider": "site"},
        "PUT /sites/{siteId}/schedule": {"userId": an_id()},
        "PUT /users/{userId}/limits": {"activeJobs": 5},
    }
    return bodies.get(f"{route.method} {route.path}")


def a_backup(call: Handlers, **fields: Any) -> str:
    body = {"userId": an_id(), "siteId": an_id(), **fields}
    job_id: str = call(ROUTES["POST /backup"], body=body).json["jobId"]
    return job_id


def assert_bad_request(answer: Answer, field: str) -> None:
    assert answer.status == 400, answer
    assert answer.json["type"] == "bad-request"
    assert answer.json["detail"].startswith(f"{field}: "), answer.json
    assert_plain(answer)


def assert_plain(answer: Answer) -> None:
    """The sentence is for people: no regular expression, no names of a programming language's types."""
    detail = answer.json["detail"]
    assert not re.search(r"`|regex|\\Z|\^\[|Expected|NoneType|\bstr\b|\bint\b", detail), detail


@pytest.mark.parametrize("key", ROUTES)
def test_every_route_refuses_a_parameter_that_it_does_not_know(call: Handlers, key: str) -> None:
    route = ROUTES[key]
    for name in ("expiresAfterDays", "Limit", ""):
        answer = call(route, good_ids(route), {name: "60"}, good_body(route))
        assert_bad_request(answer, name)


@pytest.mark.parametrize("key", [key for key, route in ROUTES.items() if "{" in route.path])
@pytest.mark.parametrize(
    "odd", ["{}\n", "{}\r\n", "\n{}", "{} ", "{}\u2028"], ids=["lf", "crlf", "first", "space", "separator"]
)
def test_every_route_refuses_an_id_with_more_than_its_digits(call: Handlers, key: str, odd: str) -> None:
    route = ROUTES[key]
    ids = {name: odd.format(value) for name, value in good_ids(route).items()}
    answer = call(route, ids, body=good_body(route))
    assert answer.status in (400, 404), answer
    assert answer.json["type"] == "bad-request" or answer.json["title"] == "There is no such route.", answer


@pytest.mark.parametrize("key", [key for key, route in ROUTES.items() if good_body(route)])
def test_a_key_that_comes_twice_in_a_body_is_refused(call: Handlers, key: str) -> None:
    route = ROUTES[key]
    body = good_body(route)
    assert body is not None
    name, value = next(iter(body.items()))
    text = json.dumps(body).replace("{", f'{{"{name}": "{value}", ', 1)
    assert_bad_request(call(route, good_ids(route), body=text), name)


@pytest.mark.parametrize("name", ["Site", "-", "site.zip", "s" * 33, "s\u00efte"])
def test_a_provider_in_a_path_or_a_body_is_called_as_providers_can_be(call: Handlers, name: str) -> None:
    job_id = a_backup(call)
    by_path = ROUTES["GET /backup/{jobId}/providers/{provider}/download"]
    assert_bad_request(call(by_path, {"jobId": job_id, "provider": name}), "provider")
    by_body = ROUTES["POST /backup/{jobId}/download"]
    assert_bad_request(call(by_body, {"jobId": job_id}, body={"provider": name}), "provider")
    for wrong, field in (
        ({}, "provider"),
        ({"provider": ["site"]}, "provider"),
        ({"jobId": job_id}, "jobId"),
    ):
        assert_bad_request(call(by_body, {"jobId": job_id}, body=wrong), field)


def test_only_allow_gives_what_is_damaged(call: Handlers) -> None:
    job_id = a_backup(call)
    for key, ids in (
        ("GET /backup/{jobId}/providers/{provider}/download", {"jobId": job_id, "provider": "site"}),
        ("POST /backup/{jobId}/download", {"jobId": job_id}),
    ):
        route = ROUTES[key]
        assert_bad_request(call(route, ids, {"damaged": "yes"}, body=good_body(route)), "damaged")
        assert call(route, ids, {"damaged": "allow"}, body=good_body(route)).status == 409


def test_a_backup_that_is_not_done_can_not_be_opened(call: Handlers) -> None:
    refused = call(ROUTES["POST /backup/{jobId}/verify"], {"jobId": a_backup(call)})
    assert (refused.status, refused.json["type"]) == (409, "state-forbids")
    assert call(ROUTES["POST /backup/{jobId}/verify"], {"jobId": an_id()}).status == 404


def test_the_coverage_is_that_of_all_sites_or_of_one_as_well(call: Handlers) -> None:
    route = ROUTES["GET /drills"]
    everything = call(route)
    assert everything.status == 200
    assert everything.json.keys() >= {"drillDays", "sites", "opened", "overdue", "unread", "lastDay"}
    assert_bad_request(call(route, query={"siteId": an_id()}), "userId")
    assert_bad_request(call(route, query={"userId": an_id()}), "siteId")
    assert_bad_request(call(route, query={"userId": an_id(), "siteId": "x"}), "siteId")
    assert call(route, query={"userId": an_id(), "siteId": an_id()}).status == 404


LIMITS, USAGE = ROUTES["PUT /users/{userId}/limits"], ROUTES["GET /users/{userId}/usage"]


@pytest.mark.parametrize(("quota", "retry_after"), [("activeJobs", "60"), ("schedules", "3600")])
def test_one_too_many_is_told_by_a_429_with_its_headers(call: Handlers, quota: str, retry_after: str) -> None:
    user = an_id()
    assert call(LIMITS, {"userId": user}, body={quota: 1}).json[quota] == {
        "used": 0,
        "limit": 1,
        "exception": True,
    }

    def one_more(of: str) -> Answer:
        site = an_id()
        if quota == "activeJobs":
            return call(ROUTES["POST /backup"], body={"userId": of, "siteId": site})
        return call(ROUTES["PUT /sites/{siteId}/schedule"], {"siteId": site}, body={"userId": of})

    assert one_more(user).status in (200, 202)
    refused = one_more(user)
    assert (refused.status, refused.json["type"]) == (429, "quota-exceeded")
    told = {name: refused.json[name] for name in ("quota", "limit", "used")}
    assert told == {"quota": quota, "limit": 1, "used": 1}
    assert refused.headers["Retry-After"] == retry_after
    assert refused.headers["RateLimit-Policy"] == f'"{quota}";q=1'
    assert refused.headers["RateLimit"] == f'"{quota}";r=0'
    assert call(USAGE, {"userId": user}).json[quota] == {"used": 1, "limit": 1, "exception": True}
    other = an_id()
    assert one_more(other).status in (200, 202), "another user's are not counted"
    assert call(USAGE, {"userId": other}).json[quota] == {"used": 1}


def test_who_has_no_byte_left_begins_no_backup_and_the_usage_says_when_restores_are_free_again(
    call: Handlers,
) -> None:
    user = an_id()
    told = call(LIMITS, {"userId": user}, body={"restoresPerDay": 0, "storedBytes": 0}).json
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT00:00:00.000Z", told["restoresPerDay"]["resetsAt"])
    no_byte = call(ROUTES["POST /backup"], body={"userId": user, "siteId": an_id()})
    assert (no_byte.status, no_byte.json["quota"]) == (429, "storedBytes")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"activeJobs": -1}, "activeJobs"),
        ({"activeJobs": 10_001}, "activeJobs"),
        ({"schedules": "many"}, "schedules"),
        ({"restoresPerDay": 1.5}, "restoresPerDay"),
        ({"storedBytes": 10**15}, "storedBytes"),
        ({"storedBytes": True}, "storedBytes"),
        ({"bytes": 1}, "bytes"),
        ([], "body"),
    ],
)
def test_limits_are_numbers_or_unlimited(call: Handlers, body: Any, field: str) -> None:
    assert_bad_request(call(LIMITS, good_ids(LIMITS), body=body), field)


def test_no_limits_take_the_exceptions_back(call: Handlers) -> None:
    user = {"userId": an_id()}
    assert call(LIMITS, user, body={"schedules": "unlimited"}).json["schedules"] == {
        "used": 0,
        "exception": True,
    }
    assert call(LIMITS, user, body={"schedules": None}).json["schedules"] == {"used": 0}
    assert call(LIMITS, user, body={}).status == 200


@pytest.mark.parametrize(
    "at",
    [
        FAR,
        "9999-12-31T23:59:59-23:59",
        "9990-01-01T00:00:00Z",
        "2126-01-01T00:00:00Z",
        "0001-01-01T00:00:00Z",
    ],
)
def test_a_time_of_deletion_is_within_ten_years(call: Handlers, at: str) -> None:
    job_id = a_backup(call)
    assert call(ROUTES["POST /backup/{jobId}/cancel"], {"jobId": job_id}).status == 202
    assert_bad_request(call(ROUTES["DELETE /backup/{jobId}"], {"jobId": job_id}, {"at": at}), "at")


@pytest.mark.parametrize(
    ("key", "query"),
    [
        ("GET /backup", {"limit": "\u0661"}),
        ("GET /backup", {"limit": "\uff11"}),
        ("GET /schedules", {"limit": "\u0967"}),
        ("GET /sites/{siteId}/retention", {"limit": "\u0661\u0660"}),
        ("GET /backup/{jobId}", {"wait": "\u0661"}),
        ("GET /backup/{jobId}", {"since": "\u0661"}),
        ("DELETE /backup/{jobId}", {"at": "\u0662\u0660\u0663\u0660-01-31T12:00:00Z"}),
        ("DELETE /backup/{jobId}", {"at": "2030-W05-4T12:00:00Z"}),
        ("DELETE /backup/{jobId}", {"at": "20300131T120000Z"}),
        ("DELETE /backup/{jobId}", {"at": "2030-01-31\n12:00:00Z"}),
    ],
)
def test_digits_of_other_scripts_and_other_forms_of_times_are_refused(
    call: Handlers, key: str, query: dict[str, str]
) -> None:
    (name,) = query
    assert_bad_request(call(ROUTES[key], good_ids(ROUTES[key]), query), name)


@pytest.mark.parametrize(
    "zone", ["localtime", "posixrules", "Factory", "right/UTC", "posix/Europe/Berlin", "europe/berlin"]
)
def test_a_time_zone_is_one_that_iana_lists(call: Handlers, zone: str) -> None:
    body = {"userId": an_id(), "timeZone": zone}
    route = ROUTES["PUT /sites/{siteId}/schedule"]
    assert_bad_request(call(route, good_ids(route), body=body), "timeZone")


# --- whatever is asked

USERS, SITES = [an_id("user"), an_id("other")], [an_id("site")]
NEWEST = "the newest backup"
"""Stands for its id in a path, as ids are not known before the requests are made."""
odd_texts = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["\u0661", "9" * 19, "9" * 400, "-1", "1e400", "\0", "\U0010ffff", FAR, "null", "[]", "NaN"]
    ),
)
ids = st.one_of(st.sampled_from([NEWEST, *SITES, *USERS]), odd_texts)
times = st.one_of(
    st.datetimes().map(lambda moment: f"{moment.isoformat()}Z"),
    st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
    st.sampled_from([FAR, "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "2031-01-31T12:00:00Z"]),
    odd_texts,
)
numbers = st.one_of(st.integers(0, 100).map(str), st.integers().map(str), odd_texts)
parameters: dict[str, st.SearchStrategy[str]] = {
    "wait": numbers,
    "since": numbers,
    "limit": numbers,
    "cursor": ids,
    "siteId": ids,
    "userId": ids,
    "status": st.one_of(st.sampled_from(["done", "failed"]), odd_texts),
    "at": times,
    "damaged": st.one_of(st.just("allow"), odd_texts),
}
cron_items = st.one_of(
    st.sampled_from(
        ["*", "0", "59", "L", "LW", "MON#5", "SUN#1/2", "5L", "*/7", "1-5/2", "31", "2", "\u00b2L"]
    ),
    st.integers(0, 10**22).map("*/{}".format),
    st.text("0123456789*/,-#LWSUNMO ", max_size=8),
)
crons = st.one_of(
    st.lists(cron_items, min_size=5, max_size=5).map(" ".join), st.sampled_from(["daily", "weekly"])
)
good: dict[str, st.SearchStrategy[Any]] = {
    "userId": st.sampled_from(USERS),
    "siteId": st.sampled_from(SITES),
    "providers": st.lists(st.sampled_from(["site", "db"]), min_size=1, max_size=2, unique=True),
    "expiresAfterDays": st.integers(1, 3650),
    "maxBytes": st.integers(1, 2**40),
    "cron": crons,
    "timeZone": st.timezone_keys(),
    "paused": st.booleans(),
    "provider": st.sampled_from(["site", "db", "mail"]),
    "jobId": st.just(an_id("no backup")),
    "before": times,
    "targetSiteId": st.sampled_from(SITES),
    "safetyBackup": st.booleans(),
    "dryRun": st.booleans(),
    **dict.fromkeys(
        ("activeJobs", "storedBytes", "restoresPerDay", "schedules"),
        st.one_of(st.integers(0, 10_000), st.just("unlimited")),
    ),
}
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    odd_texts,
    st.lists(st.one_of(st.sampled_from(["site", "db"]), odd_texts), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
texts = st.one_of(
    st.text(max_size=50),
    st.binary(max_size=50),
    st.sampled_from(["[" * 5000, '{"userId":' * 5000, '{"userId": "\\ud800"}', "\ufeff{}", "nul"]),
)
keys = st.one_of(st.just("nightly"), odd_texts)
BODIES = {
    "PUT /users/{userId}/limits": ([], ["activeJobs", "storedBytes", "restoresPerDay", "schedules"]),
    "POST /backup": (["userId", "siteId"], ["providers", "expiresAfterDays", "maxBytes"]),
    "POST /backup/{jobId}/download": (["provider"], []),
    "POST /restores": (
        ["userId", "siteId", "providers"],
        ["jobId", "before", "targetSiteId", "safetyBackup", "dryRun"],
    ),
    "PUT /sites/{siteId}/schedule": (
        ["userId"],
        ["cron", "timeZone", "expiresAfterDays", "providers", "paused"],
    ),
}
Asked = tuple[Route, dict[str, str], dict[str, str], Any, dict[str, str], Any]
callers: st.SearchStrategy[Any] = st.one_of(
    st.just(SERVICE),
    st.sampled_from(
        [
            {"jwt": {"claims": {"sub": user, "scope": scope}, "scopes": None}}
            for user in (USERS[0], "nobody")
            for scope in ("backup:read backup:write backup:restore backup:delete", "backup:read", "")
        ]
    ),
    st.dictionaries(st.sampled_from(["iam", "jwt", "lambda"]), st.one_of(st.none(), st.just({}), odd_texts)),
)


@st.composite
def requests(draw: st.DrawFn) -> Asked:
    """A request to any route, most of it good, so that it gets far."""
    key = draw(st.sampled_from(sorted(ROUTES)))
    route = ROUTES[key]
    names = re.findall(r"\{(\w+)\}", route.path)
    usual = {
        "jobId": st.just(NEWEST),
        "siteId": st.sampled_from(SITES),
        "userId": st.sampled_from(USERS),
        "provider": good["provider"],
        "restoreId": st.just(an_id("no restore")),
    }
    path = {name: draw(st.one_of(usual[name], usual[name], ids)) for name in names}
    known = sorted(QUERIES.get(key, set()))
    query = draw(st.fixed_dictionaries({}, optional={name: parameters[name] for name in known}))
    if key in BODIES:
        required, others = BODIES[key]
        body = draw(
            st.fixed_dictionaries(
                {name: good[name] for name in required}, optional={name: good[name] for name in others}
            )
        )
        body |= draw(st.dictionaries(st.sampled_from([*required, *others, "colour"]), values, max_size=1))
    else:
        body = None
    headers = {"idempotency-key": draw(keys)} if draw(st.booleans()) else {}
    sent = draw(st.one_of(st.just(body), st.just(body), texts))
    return route, path, query, sent, headers, draw(callers)


STATES: dict[str, list[str]] = {
    "nothing": [],
    "a running backup": ["POST /backup"],
    "a cancelled backup": ["POST /backup", "POST /backup/{jobId}/cancel"],
    "a marked backup": ["POST /backup", "POST /backup/{jobId}/cancel", "DELETE /backup/{jobId}"],
    "a retried backup": ["POST /backup", "POST /backup/{jobId}/cancel", "POST /backup/{jobId}/retry"],
    "a schedule": ["PUT /sites/{siteId}/schedule"],
    "a paused schedule": ["PUT /sites/{siteId}/schedule", "POST /sites/{siteId}/schedule/pause"],
}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(state=st.sampled_from(sorted(STATES)), asked=st.lists(requests(), min_size=1, max_size=3))
def test_no_request_whatever_is_a_500(call: Handlers, state: str, asked: list[Asked]) -> None:
    """Nor is any request after it: the answer is a success, or a problem that a person understands."""
    call.clear()
    newest = an_id("no backup")
    body = {"userId": USERS[0], "siteId": SITES[0]}
    for key in STATES[state]:
        sent = {name: body[name] for name in BODIES.get(key, ([], []))[0]}
        query = {"userId": USERS[0]} if QUERIES.get(key) == {"userId"} else {}
        answer = call(ROUTES[key], {"jobId": newest, "siteId": SITES[0]}, query, sent)
        assert answer.status < 300, answer
        newest = answer.json.get("jobId", newest)
    for route, path, query, sent, headers, caller in asked:
        named = {name: newest if value == NEWEST else value for name, value in path.items()}
        answer = call(route, named, query, sent, headers, caller)
        assert answer.status < 500, answer
        if answer.status >= 400:
            assert answer.headers["Content-Type"] == "application/problem+json"
            assert_plain(answer)
        elif answer.status == 202:
            newest = answer.json["jobId"]
