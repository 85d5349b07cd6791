"""The local HTTP API over real HTTP: events of payload format 2.0 in, responses out, as API Gateway does it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from local.asgi import serve
from local.http_api.gateway import HttpApi
from tests.integration.lambda_harness import LIMIT_SECONDS, Harness, running

ORIGIN = "https://app.example.com"


@pytest.fixture(scope="module")
def lambdas() -> Iterator[Harness]:
    with running() as harness:
        yield harness


def call(lambdas: Harness, method: str, path: str, **options: Any) -> requests.Response:
    return requests.request(method, lambdas.http_url + path, timeout=LIMIT_SECONDS, **options)


def event_of(lambdas: Harness, method: str, path: str, **options: Any) -> dict[str, Any]:
    answer = call(lambdas, method, path, **options)
    assert answer.status_code == 200
    event: dict[str, Any] = answer.json()["event"]
    return event


def respond(lambdas: Harness, answer: Any) -> requests.Response:
    """What the client gets when the function returns `answer`."""
    return call(
        lambdas, "POST", "/things?respond", data=json.dumps(answer), headers={"content-type": "text/plain"}
    )


def test_event(lambdas: Harness) -> None:
    event = event_of(
        lambdas,
        "GET",
        "/things/a%20b?x=1&x=2&y=&z=%C3%BC",
        headers={"X-Custom": "Value", "User-Agent": "tests", "Cookie": "one=1; two=2"},
    )
    assert (event["version"], event["routeKey"], event["rawPath"]) == (
        "2.0",
        "GET /things/{id}",
        "/things/a b",
    )
    assert event["pathParameters"] == {"id": "a b"}
    assert event["rawQueryString"] == "x=1&x=2&y=&z=%C3%BC"
    assert event["queryStringParameters"] == {"x": "1,2", "y": "", "z": "ü"}
    assert event["cookies"] == ["one=1", "two=2"]
    assert event["headers"]["x-custom"] == "Value"
    assert "cookie" not in event["headers"]
    assert event["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert "body" not in event
    assert event["isBase64Encoded"] is False
    context = event["requestContext"]
    assert context["http"] == {
        "method": "GET",
        "path": "/things/a b",
        "protocol": "HTTP/1.1",
        "sourceIp": "127.0.0.1",
        "userAgent": "tests",
    }
    assert (context["routeKey"], context["stage"], context["domainName"]) == (
        "GET /things/{id}",
        "$default",
        "127.0.0.1",
    )
    assert context["timeEpoch"] > 1_700_000_000_000
    assert context["time"].endswith(" +0000")
    assert context["requestId"]


@pytest.mark.parametrize(
    ("body", "content_type", "encoded"),
    [
        ('{"ü": 1}'.encode(), "application/json", False),
        (b"<a/>", "application/problem+xml; charset=utf-8", False),
        (b"plain", "text/plain", False),
        (b"a=1&b=2", "application/x-www-form-urlencoded", True),
        (b"\x00\xff", "application/octet-stream", True),
        (b"\x00\xff", "text/plain", True),
    ],
)
def test_body(lambdas: Harness, body: bytes, content_type: str, encoded: bool) -> None:
    event = event_of(lambdas, "POST", "/things", data=body, headers={"content-type": content_type})
    assert event["isBase64Encoded"] is encoded
    assert (base64.b64decode(event["body"]) if encoded else event["body"].encode()) == body


@pytest.mark.parametrize(
    ("method", "path", "key", "parameters"),
    [
        ("GET", "/things/fixed", "GET /things/fixed", None),
        ("GET", "/things/other", "GET /things/{id}", {"id": "other"}),
        ("GET", "/things/a%2Fb", "GET /things/{id}", {"id": "a/b"}),
        ("GET", "/things/a%0Ab", "GET /things/{id}", {"id": "a\nb"}),
        ("PUT", "/files/a/b/c", "ANY /files/{path+}", {"path": "a/b/c"}),
    ],
)
def test_most_specific_route_answers(
    lambdas: Harness, method: str, path: str, key: str, parameters: dict[str, str] | None
) -> None:
    event = event_of(lambdas, method, path)
    assert (event["routeKey"], event.get("pathParameters")) == (key, parameters)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("DELETE", "/things"), ("GET", "/things/a/b"), ("GET", "/")]
)
def test_no_route(lambdas: Harness, method: str, path: str) -> None:
    answer = call(lambdas, method, path)
    assert (answer.status_code, answer.json()) == (404, {"message": "Not Found"})


def test_structured_response(lambdas: Harness) -> None:
    answer = respond(
        lambdas,
        {
            "statusCode": 202,
            "headers": {"Content-Type": "application/problem+json", "Location": "/x", "X-Number": 3},
            "cookies": ["a=1; Path=/", "b=2"],
            "body": '{"ü": 1}',
        },
    )
    assert (answer.status_code, answer.content) == (202, '{"ü": 1}'.encode())
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.headers["location"], answer.headers["x-number"]) == ("/x", "3")
    assert answer.raw.headers.getlist("set-cookie") == ["a=1; Path=/", "b=2"]
    assert answer.headers["apigw-requestid"]


def test_binary_and_empty_responses(lambdas: Harness) -> None:
    encoded = base64.b64encode(b"\x00\xff").decode()
    assert (
        respond(lambdas, {"statusCode": 200, "body": encoded, "isBase64Encoded": True}).content == b"\x00\xff"
    )
    empty = respond(lambdas, {"statusCode": "204"})
    assert (empty.status_code, empty.content) == (204, b"")
    assert (
        respond(lambdas, {"statusCode": 200, "body": "x"}).headers["content-type"]
        == "text/plain;charset=UTF-8"
    )


@pytest.mark.parametrize("answer", [{"a": 1}, "hello", [1, 2], None, 3])
def test_simple_response(lambdas: Harness, answer: Any) -> None:
    response = respond(lambdas, answer)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == answer


@pytest.mark.parametrize(
    "answer",
    [
        {"statusCode": "many"},
        {"statusCode": 99},
        {"statusCode": 200, "body": {"not": "a string"}},
        {"statusCode": 200, "headers": ["x"]},
        {"statusCode": 200, "headers": {"x": ["y"]}},
        {"statusCode": 200, "body": "%", "isBase64Encoded": True},
    ],
)
def test_malformed_response_is_an_internal_error(lambdas: Harness, answer: Any) -> None:
    response = respond(lambdas, answer)
    assert (response.status_code, response.json()) == (500, {"message": "Internal Server Error"})


def test_function_error_is_an_internal_error(lambdas: Harness) -> None:
    assert call(lambdas, "GET", "/slow").status_code == 500  # the function times out after 1 s


def test_request_over_10_mb(lambdas: Harness) -> None:
    answer = call(lambdas, "POST", "/things", data=b"x" * (10 * 1024 * 1024 + 1))
    assert (answer.status_code, answer.json()) == (413, {"message": "Request Entity Too Large"})


def test_request_over_6_mb_is_more_than_a_function_takes(lambdas: Harness) -> None:
    answer = call(lambdas, "POST", "/things", data=b"x" * (7 * 1024 * 1024))
    assert (answer.status_code, answer.json()) == (413, {"message": "Request Entity Too Large"})


@pytest.mark.parametrize("sent", [b"", b"half of it"])
def test_client_that_goes_away_leaves_no_trace(
    lambdas: Harness, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    async def leave() -> int:
        api = HttpApi(lambdas.template, lambdas.lambda_url)
        ended = asyncio.Event()

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            try:
                await api.app(scope, receive, send)
            finally:
                ended.set()

        async with serve(watched) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /things HTTP/1.1\r\nHost: local\r\nContent-Length: 1000\r\n\r\n" + sent)
            await writer.drain()
            writer.close()
            await asyncio.wait_for(ended.wait(), LIMIT_SECONDS)
            # Answered by the same loop, and so after whatever that had to say of the first one.
            answer = await asyncio.to_thread(
                requests.get, f"http://127.0.0.1:{port}/nothing", timeout=LIMIT_SECONDS
            )
        api.close()
        return answer.status_code

    assert lambdas.loop.run(leave()) == 404
    assert caplog.text == ""


def test_throttled_function_is_unavailable(lambdas: Harness, tmp_path: Path) -> None:
    release = tmp_path / "release"
    event = json.dumps({"until": str(release)}).encode()
    with ThreadPoolExecutor() as threads:
        future = threads.submit(lambdas.client.invoke, FunctionName="hold", Payload=event)
        try:
            while not any(one["state"] == "busy" for one in lambdas.environments("hold")):
                assert not future.done()
            answer = call(lambdas, "GET", "/hold")
        finally:
            release.touch()
        future.result(LIMIT_SECONDS)
    assert (answer.status_code, answer.json()) == (503, {"message": "Service Unavailable"})


def test_integration_limit() -> None:
    with running(http_seconds=0.3) as lambdas:
        answer = call(lambdas, "GET", "/slow")
    assert (answer.status_code, answer.json()) == (503, {"message": "Service Unavailable"})


def test_lambda_service_that_is_down_is_an_internal_error(lambdas: Harness) -> None:
    async def ask() -> tuple[int, Any]:
        api = HttpApi(lambdas.template, "http://127.0.0.1:9")
        async with serve(api.app) as port:
            answer = await asyncio.to_thread(
                requests.get, f"http://127.0.0.1:{port}/things/1", timeout=LIMIT_SECONDS
            )
        api.close()
        return answer.status_code, answer.json()

    assert lambdas.loop.run(ask()) == (500, {"message": "Internal Server Error"})


def cors(answer: requests.Response) -> dict[str, str]:
    return {
        name.lower(): value for name, value in answer.headers.items() if name.lower().startswith("access-")
    }


def test_preflight_is_answered_by_the_gateway(lambdas: Harness) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    answer = call(lambdas, "OPTIONS", "/things", headers=asked)
    assert (answer.status_code, answer.content) == (204, b"")
    assert cors(answer) == {
        "access-control-allow-origin": ORIGIN,
        "access-control-allow-methods": "GET,POST",
        "access-control-allow-headers": "content-type",
        "access-control-max-age": "600",
    }
    other = call(lambdas, "OPTIONS", "/things", headers=asked | {"Origin": "https://evil.example.com"})
    assert (other.status_code, cors(other)) == (204, {})


def test_cors_headers_are_the_gateways_own(lambdas: Harness) -> None:
    assert cors(call(lambdas, "GET", "/things/1")) == {}
    assert cors(call(lambdas, "GET", "/things/1", headers={"Origin": ORIGIN})) == {
        "access-control-allow-origin": ORIGIN
    }
    own = {"statusCode": 200, "headers": {"Access-Control-Allow-Origin": "*"}}
    assert cors(respond(lambdas, own)) == {}
