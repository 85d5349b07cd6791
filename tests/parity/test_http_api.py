"""HTTP requests through the API without Docker and through `sam local start-api`, function and answer alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from local.lambda_runtime.sam import Sam, SamServer
from tests.integration.lambda_harness import Harness
from tests.parity.conftest import alone

LIMIT_SECONDS = 240


@pytest.fixture(scope="module")
def server(built: Sam, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SamServer]:
    server = SamServer("start-api", built, tmp_path_factory.mktemp("start-api"))
    try:
        with alone():
            server.start()
            server.wait_ready()
        yield server
    finally:
        server.stop()


Both = tuple[requests.Response, requests.Response]


def both(local: Harness, server: SamServer, method: str, path: str, **options: Any) -> Both:
    """The answer without Docker, and sam's."""
    ours, theirs = (
        requests.request(method, url + path, timeout=LIMIT_SECONDS, **options)
        for url in (local.http_url, server.address)
    )
    return ours, theirs


def events(answers: Both) -> tuple[dict[str, Any], dict[str, Any]]:
    ours, theirs = (answer.json()["event"] for answer in answers)
    return ours, theirs


REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "query and cookies": ("GET", "/things/a%20b?x=1&x=2&y=%C3%BC&z", {"headers": {"Cookie": "a=1; b=2"}}),
    "json": ("POST", "/things", {"json": {"a": "ü"}}),
    "rest of the path": ("PUT", "/files/a/b%2Fc", {"data": "text", "headers": {"X-One": "1"}}),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_the_event_of_a_request(local: Harness, server: SamServer, case: str) -> None:
    method, path, options = REQUESTS[case]
    ours, theirs = events(both(local, server, method, path, **options))
    for field in ("version", "rawPath", "rawQueryString", "isBase64Encoded"):
        assert theirs[field] == ours[field]
    for field, empty in (
        ("queryStringParameters", {}),
        ("pathParameters", {}),
        ("cookies", []),
        ("body", ""),
    ):
        assert (theirs.get(field) or empty) == ours.get(field, empty)  # what is absent: left out, or empty
    context, theirs_context = ours["requestContext"], theirs["requestContext"]
    for field in ("method", "path", "protocol", "sourceIp"):
        assert theirs_context["http"][field] == context["http"][field]
    assert theirs_context["stage"] == context["stage"]
    assert theirs_context.keys() >= context.keys() - {"authorizer"}
    assert not theirs_context.get("authorizer"), "sam knows a caller by now"
    assert set(context["authorizer"]) == {"iam"}
    assert theirs["routeKey"] == theirs_context["routeKey"]
    assert ours["routeKey"] == context["routeKey"]
    # The differences.
    assert theirs["routeKey"] == ours["routeKey"].replace("ANY", method)
    assert theirs["stageVariables"] is None
    assert "stageVariables" not in ours
    assert 900 < context["timeEpoch"] / theirs_context["timeEpoch"] < 1100
    ours["headers"].pop("x-amzn-trace-id")
    ours["headers"].pop("x-forwarded-for")
    lowered = {name.lower(): value for name, value in theirs["headers"].items()}
    assert lowered.keys() - {"cookie"} == ours["headers"].keys()
    assert "Accept" in theirs["headers"]
    assert "accept" in ours["headers"]
    for name in ours["headers"].keys() - {"host", "x-forwarded-port"}:
        assert lowered[name] == ours["headers"][name]


ANSWERS: dict[str, Any] = {
    "created": {"statusCode": 201, "headers": {"Location": "/x"}, "body": "hi", "cookies": ["a=b"]},
    "problem": {
        "statusCode": 404,
        "headers": {"Content-Type": "application/problem+json"},
        "body": '{"status": 404}',
    },
    "bytes": {
        "statusCode": 200,
        "headers": {"Content-Type": "application/zip"},
        "body": "/+8=",
        "isBase64Encoded": True,
    },
    "no content": {"statusCode": 204},
    "no response of the API's form": {"some": "x"},
}


@pytest.mark.parametrize("case", ANSWERS)
def test_the_answer_to_a_request(local: Harness, server: SamServer, case: str) -> None:
    ours, theirs = both(local, server, "POST", "/things?respond", json=ANSWERS[case])
    assert theirs.status_code == ours.status_code
    for header in ("location", "set-cookie"):
        assert theirs.headers.get(header) == ours.headers.get(header)
    if "Content-Type" in ANSWERS[case].get("headers", {}):
        assert theirs.headers["content-type"] == ours.headers["content-type"]
    assert theirs.content == ours.content


# --- known differences


def test_sam_takes_no_binary_body(local: Harness, server: SamServer) -> None:
    ours, theirs = both(local, server, "POST", "/things", data=b"\xff\xfe")
    assert ours.json()["event"]["body"] == "//4="
    assert theirs.status_code == 502


@pytest.mark.parametrize(
    "request_", [("GET", "/slow", None), ("POST", "/things?respond", {"statusCode": "x"})]
)
def test_failures_are_502_under_sam(
    local: Harness, server: SamServer, request_: tuple[str, str, Any]
) -> None:
    method, path, body = request_
    ours, theirs = both(local, server, method, path, json=body)
    assert (ours.status_code, ours.json()) == (500, {"message": "Internal Server Error"})
    assert (theirs.status_code, theirs.json()) == (502, {"message": "Internal server error"})


def test_no_such_route_is_403_under_sam(local: Harness, server: SamServer) -> None:
    ours, theirs = both(local, server, "GET", "/nothing")
    assert (ours.status_code, ours.json()) == (404, {"message": "Not Found"})
    assert (theirs.status_code, theirs.json()) == (403, {"message": "Missing Authentication Token"})


def test_a_json_text_is_not_quoted_under_sam(local: Harness, server: SamServer) -> None:
    ours, theirs = both(local, server, "POST", "/things?respond", json="text")
    assert (ours.text, theirs.text) == ('"text"', "text")
