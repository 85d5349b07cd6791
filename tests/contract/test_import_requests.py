"""What is sent to import APIs, to whom, and what is made of answers that break the rules.

The other side is a script here: a server that lies, or one that answers before it has read.
"""

import base64
import hashlib
import json
import logging
import socket
import threading
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sitebackup.adapters.secrets import Secrets
from sitebackup.adapters.tus_imports.imports import MAX_ANSWER_BYTES, MAX_MESSAGE, MAX_URL, TusImports
from sitebackup.domain.errors import Permanent, SiteBackupError, Transient
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code
from sitebackup.ports.providers import ImportOffer, ImportOutcome, ImportTarget
from tests.builders import LOOPBACK
from tests.contract import wire
from tests.contract.test_export_requests import Manager
from tests.contract.test_time_limits import ends_in_time, time_left
from tests.contract.test_time_limits import trickling as trickle
from tests.lying_server import Answer, Asked, Lie, LyingServer, answer

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
SILENCE_SECONDS = 8.0
A = "site-a"
ARN = "arn:secret"
SECRET = "upload-4711"
"""The path of an upload."""
DATA = bytes(range(200))
TARGET = ImportTarget(user_id="u", site_id=A, job_id="j", restore_id="r", crc64nvme="AAAAAAAAAAA=")


def honest(asked: Asked) -> Answer:
    """As an import API should answer."""
    match asked.method:
        case "OPTIONS":
            offered = "Tus-Extension: creation, checksum", "Tus-Checksum-Algorithm: md5,sha256,sha1"
            return answer("204 No Content", "Tus-Version: 0.2.2,1.0.0", *offered, then="keep")
        case "POST":
            return answer("201 Created", f"Location: /{A}/{SECRET}", "Content-Length: 0", then="keep")
        case "PATCH":
            arrived = int(asked.headers["upload-offset"]) + len(asked.body)
            return answer("204 No Content", f"Upload-Offset: {arrived}", then="keep")
        case "GET":
            body = b'{"state": "done"}'
            return answer("200 OK", f"Content-Length: {len(body)}", body=body, then="keep")
        case "HEAD":
            return answer("200 OK", "Upload-Offset: 5", "Content-Length: 200", then="keep")
    return answer("204 No Content", then="keep")


def but(**by_method: Answer) -> Lie:
    """As it should, but for these."""
    return lambda asked: by_method.get(asked.method) or honest(asked)


def says(status: str, *headers: str, body: bytes = b"") -> Answer:
    return answer(status, *headers, f"Content-Length: {len(body)}", body=body)


@pytest.fixture
def server() -> Iterator[LyingServer]:
    server = LyingServer()
    server.sites[A] = honest
    yield server
    server.close()


@pytest.fixture
def other() -> Iterator[LyingServer]:
    other = LyingServer()
    other.sites[A] = honest
    yield other
    other.close()


def imports(
    token: Callable[[str, float], str] = lambda arn, since: "token", timeout: float = SILENCE_SECONDS
) -> TusImports:
    return TusImports(timeout, token, lambda: NOW)


def provider(url: str, **fields: Any) -> Provider:
    return Provider(
        name="site",
        export_url="http://site",
        import_url=f"{url}/{A}/import",
        allow_networks=LOOPBACK,
        **fields,
    )


def calls(server: str, upload: str | None = None, **fields: Any) -> dict[str, Callable[[], object]]:
    """Each call of the port, by its method."""
    api, to = imports(), provider(server, **fields)
    at = upload or f"{server}/{A}/{SECRET}"
    return {
        "OPTIONS": lambda: api.offer(to, "u", A),
        "POST": lambda: api.create(to, TARGET, len(DATA)),
        "HEAD": lambda: api.offset(to, at),
        "PATCH": lambda: api.send(to, at, 5, memoryview(DATA)),
        "GET": lambda: api.outcome(to, at),
        "DELETE": lambda: api.delete(to, at),
    }


def refused(call: Callable[[], object], code: Code, message: str) -> None:
    with pytest.raises(Permanent, match=message) as raised:
        call()
    assert raised.value.reason.code is code
    assert SECRET not in "".join(traceback.format_exception(raised.value))


def invalid(call: Callable[[], object], message: str = "") -> None:
    refused(call, Code.IMPORT_INVALID, rf"^site does not follow tus: {message}")


# --- what is asked


def test_an_upload_is_created_with_all_that_the_provider_is_told(server: LyingServer) -> None:
    made = imports().create(provider(server.url), TARGET, 77)
    assert made == f"{server.url}/{A}/{SECRET}"
    (asked,) = server.asked[A]
    assert (asked.method, asked.target) == ("POST", f"/{A}/import")
    sent = [asked.headers[name] for name in ("tus-resumable", "upload-length", "content-length")]
    assert sent == ["1.0.0", "77", "0"]
    pairs = (pair.split(" ") for pair in asked.headers["upload-metadata"].split(","))
    assert {name: base64.b64decode(value).decode() for name, value in pairs} == {
        "filename": "site.zip",
        "filetype": "application/zip",
        "userId": "u",
        "siteId": A,
        "jobId": "j",
        "restoreId": "r",
        "crc64nvme": "AAAAAAAAAAA=",
    }


def test_each_call_is_a_request_as_tus_has_it(server: LyingServer) -> None:
    for method, call in calls(server.url).items():
        call()
        asked = server.asked[A][-1]
        assert asked.method == method
        assert asked.headers.get("tus-resumable") == (None if method == "OPTIONS" else "1.0.0")
        assert asked.headers["accept-encoding"] == "identity"
        assert "transfer-encoding" not in asked.headers


def test_a_slice_is_sent_with_its_offset_and_its_checksum(server: LyingServer) -> None:
    assert calls(server.url)["PATCH"]() == 5 + len(DATA)
    options, patch = server.asked[A]
    assert (options.method, patch.method, patch.body) == ("OPTIONS", "PATCH", DATA)
    names = ("content-type", "upload-offset", "content-length")
    assert [patch.headers[name] for name in names] == ["application/offset+octet-stream", "5", "200"]
    digest = base64.b64encode(hashlib.sha1(DATA).digest()).decode()
    assert patch.headers["upload-checksum"] == f"sha1 {digest}"


@pytest.mark.parametrize(
    ("extensions", "algorithms", "chosen"),
    [
        ("creation,checksum", "sha256,sha1", "sha1"),
        ("creation , checksum", "md5, sha256", "sha256"),
        ("creation,checksum", "md5,crc32", None),
        ("creation,checksum", "", None),
        ("creation,checksum-trailer", "sha1", None),
        ("", "sha1", None),
    ],
)
def test_a_checksum_is_one_that_is_offered(
    server: LyingServer, extensions: str, algorithms: str, chosen: str | None
) -> None:
    offered = f"Tus-Extension: {extensions}", f"Tus-Checksum-Algorithm: {algorithms}"
    server.sites[A] = but(OPTIONS=answer("204 No Content", *offered, then="keep"))
    calls(server.url)["PATCH"]()
    sent = server.asked[A][-1].headers.get("upload-checksum")
    assert (sent.split(" ")[0] if sent else None) == chosen


def test_an_offer_that_never_comes_delays_only_the_first_slice(server: LyingServer) -> None:
    server.sites[A] = but(OPTIONS=Answer(b"", "keep"))
    api = imports(timeout=0.5)
    for offset in (0, len(DATA)):
        api.send(provider(server.url), f"{server.url}/{A}/{SECRET}", offset, memoryview(DATA))
    assert [asked.method for asked in server.asked[A]] == ["OPTIONS", "PATCH", "PATCH"]


def test_an_offer_that_never_comes_leaves_the_slice_its_time(server: LyingServer) -> None:
    """Waiting for it as long as for other answers would use up all of the time."""
    server.sites[A] = but(OPTIONS=Answer(b"", "keep"))
    api, at = imports(timeout=60), f"{server.url}/{A}/{SECRET}"
    assert api.send(provider(server.url), at, 0, memoryview(DATA), time_left(15)) == len(DATA)


def test_a_slice_of_no_bytes_is_sent_as_such(server: LyingServer) -> None:
    assert imports().send(provider(server.url), f"{server.url}/{A}/{SECRET}", 7, memoryview(b"")) == 7
    assert server.asked[A][-1].headers["content-length"] == "0"


def test_a_cookie_is_never_sent_back(server: LyingServer) -> None:
    def with_cookies(asked: Asked) -> Answer:
        told = honest(asked)
        return Answer(told.data.replace(b"\r\n", b"\r\nSet-Cookie: of=a; Path=/\r\n", 1), told.then)

    server.sites[A] = with_cookies
    every = calls(server.url)
    for call in [*every.values(), *every.values()]:
        call()
    assert len(server.asked[A]) >= 12
    assert not any("cookie" in asked.headers for asked in server.asked[A])


# --- connections


def test_all_calls_share_a_connection(server: LyingServer) -> None:
    with wire.proxy(server.port) as proxy:
        for call in calls(f"http://127.0.0.1:{proxy.port}").values():
            call()
        assert proxy.accepted == 1


def test_a_connection_that_ended_while_it_was_idle_costs_no_try() -> None:
    ended = threading.Semaphore(0)

    def serve(client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(answer("200 OK", "Upload-Offset: 5", then="keep").data)
        client.shutdown(socket.SHUT_RDWR)
        ended.release()

    with wire.serving(serve) as server:
        head = calls(f"http://127.0.0.1:{server.port}")["HEAD"]
        for _ in range(3):
            assert head() == 5
            assert ended.acquire(timeout=wire.LIMIT_SECONDS)
        assert server.accepted == 3


def test_threads_share_an_adapter(server: LyingServer) -> None:
    api, to, at = imports(), provider(server.url), f"{server.url}/{A}/{SECRET}"

    def send(offset: int) -> int:
        return api.send(to, at, offset, memoryview(DATA))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(send, range(100))) == [offset + len(DATA) for offset in range(100)]


def test_a_slice_is_sent_without_a_copy_of_it(server: LyingServer) -> None:
    data = memoryview(bytearray(8 << 20))

    def serve(client: socket.socket) -> None:
        buffer, left = bytearray(65536), len(data) - len(wire.head_of(client).partition(b"\r\n\r\n")[2])
        while left:
            left -= client.recv_into(buffer)
        client.sendall(answer("204 No Content", f"Upload-Offset: {len(data)}").data)

    api = imports()
    api.send(provider(server.url), f"{server.url}/{A}/x", 0, memoryview(DATA))  # what is imported and kept
    with wire.serving(serve) as sink:
        tracemalloc.start()
        try:
            arrived = api.send(provider(server.url), f"http://127.0.0.1:{sink.port}/{A}/x", 0, data)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert arrived == len(data)
    assert peak < 1 << 20


# --- where an upload may be, and who gets the token


def location(server: LyingServer, text: str, *headers: str) -> None:
    """New uploads are there."""
    server.sites[A] = but(POST=answer("201 Created", f"Location: {text}", "Content-Length: 0", *headers))


def test_an_upload_on_the_providers_own_host_gets_the_token(server: LyingServer) -> None:
    for call in calls(server.url, auth_secret_arn=ARN).values():
        call()
    assert {asked.headers["authorization"] for asked in server.asked[A]} == {"Bearer token"}


def test_an_upload_on_a_foreign_host_is_refused_and_never_asked_for(
    server: LyingServer, other: LyingServer
) -> None:
    location(server, f"http://localhost:{other.port}/{A}/{SECRET}")
    invalid(calls(server.url)["POST"], r"an upload leads to localhost, which is not among its redirectHosts")
    assert not other.asked


def test_an_upload_on_a_listed_host_gets_bytes_and_no_token(server: LyingServer, other: LyingServer) -> None:
    foreign = f"http://localhost:{other.port}/{A}/{SECRET}"
    location(server, foreign)
    fields: dict[str, Any] = {"redirect_hosts": ("LocalHost",), "auth_secret_arn": ARN}
    assert calls(server.url, **fields)["POST"]() == foreign
    of_upload = calls(server.url, foreign, **fields)
    for method in ("HEAD", "PATCH", "GET", "DELETE"):
        of_upload[method]()
    assert [asked.method for asked in other.asked[A]] == ["HEAD", "OPTIONS", "PATCH", "GET", "DELETE"]
    assert not any("authorization" in asked.headers for asked in other.asked[A])


def test_an_upload_on_another_port_gets_no_token(server: LyingServer, other: LyingServer) -> None:
    location(server, f"{other.url}/{A}/{SECRET}")
    every = calls(server.url, f"{other.url}/{A}/{SECRET}", auth_secret_arn=ARN)
    every["POST"]()
    every["HEAD"]()
    assert "authorization" not in other.asked[A][0].headers


@pytest.mark.parametrize(
    "text", ["", "http://[", "http://127.0.0.1:99999/", "file:///etc/passwd", "\xff", f"data:,{SECRET}"]
)
def test_an_upload_nowhere_is_refused(server: LyingServer, text: str) -> None:
    data = f"HTTP/1.1 201 Created\r\nLocation: {text}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")
    server.sites[A] = but(POST=Answer(data))
    invalid(calls(server.url)["POST"], "an upload leads to a URL that is not valid")


def test_an_upload_without_a_location_is_refused(server: LyingServer) -> None:
    server.sites[A] = but(POST=says("201 Created"))
    invalid(calls(server.url)["POST"], "an upload leads to a URL that is not valid")


def test_the_url_of_an_upload_is_of_a_length_that_can_be_stored(server: LyingServer) -> None:
    start = f"{server.url}/{A}/"
    location(server, longest := start + "x" * (MAX_URL - len(start)))
    assert calls(server.url)["POST"]() == longest
    location(server, longest + "x")
    invalid(calls(server.url)["POST"], f"the URL of an upload has more than {MAX_URL} characters")


def test_an_upload_never_leaves_https(
    server: LyingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, trusted = wire.certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    with wire.proxy(server.port, tls=tls) as proxy:
        url = f"https://127.0.0.1:{proxy.port}"
        for call in calls(url, auth_secret_arn=ARN).values():
            call()
        assert {asked.headers["authorization"] for asked in server.asked[A]} == {"Bearer token"}
        location(server, f"{server.url}/{A}/{SECRET}")
        invalid(calls(url)["POST"], "an upload leads from https to http")


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
def test_a_redirect_is_not_followed(server: LyingServer, other: LyingServer, status: int) -> None:
    server.sites[A] = lambda asked: says(f"{status} Elsewhere", f"Location: {other.url}/{A}/{SECRET}")
    for call in calls(server.url).values():
        refused(call, Code.IMPORT_REFUSED, rf"^site answered {status}\.$")
    assert not other.asked


# --- tokens


def test_a_rotated_token_is_read_again_and_the_slice_sent_once_more(server: LyingServer) -> None:
    manager = Manager()
    api = imports(Secrets(manager))  # type: ignore[arg-type]
    to, at = provider(server.url, auth_secret_arn=ARN), f"{server.url}/{A}/{SECRET}"
    assert api.send(to, at, 0, memoryview(DATA)) == len(DATA)

    def wants_the_new(asked: Asked) -> Answer:
        known = asked.headers["authorization"] == "Bearer new"
        return honest(asked) if known else says("401 Unauthorized")

    manager.text, server.sites[A] = "new", wants_the_new
    server.asked.clear()
    assert api.send(to, at, 0, memoryview(DATA)) == len(DATA)
    assert [(asked.headers["authorization"], asked.body) for asked in server.asked[A]] == [
        ("Bearer old", DATA),
        ("Bearer new", DATA),
    ]
    manager.text, server.sites[A] = "newer", lambda asked: says("401 Unauthorized")
    refused(lambda: api.send(to, at, 0, memoryview(DATA)), Code.IMPORT_FORBIDDEN, r"^site answered 401\.$")
    assert len(server.asked[A]) == 4


def test_a_token_that_can_not_be_read_or_sent_fails_the_import(server: LyingServer) -> None:
    def unreadable(arn: str, since: float) -> str:
        raise Permanent(Code.EXPORT_FORBIDDEN, "The secret holds no text.")

    to, at = provider(server.url, auth_secret_arn=ARN), f"{server.url}/{A}/{SECRET}"
    for token, message in ((unreadable, "holds no text"), (lambda arn, since: "a\nb", "can't be sent")):
        refused(lambda token=token: imports(token).offset(to, at), Code.IMPORT_FORBIDDEN, message)  # type: ignore[misc]
    assert not server.asked


# --- answers that break the rules of tus


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Upload-Offset:"],
        ["Upload-Offset: -1"],
        ["Upload-Offset: 1e3"],
        ["Upload-Offset: 5", "Upload-Offset: 5"],
        ["Upload-Offset: " + "9" * 19],
        ["Upload-Offset: \xb2"],
        ["no header at all", "Upload-Offset: 5"],
    ],
)
def test_an_offset_that_is_none_breaks_the_rules(server: LyingServer, headers: list[str]) -> None:
    data = "\r\n".join(["HTTP/1.1 204 No Content", *headers, "", ""]).encode("latin-1")
    server.sites[A] = but(HEAD=Answer(data), PATCH=Answer(data))
    every = calls(server.url)
    for method in ("HEAD", "PATCH"):
        invalid(every[method], "Upload-Offset is missing or no number of bytes")


def test_lengths_that_contradict_each_other_break_the_rules(server: LyingServer) -> None:
    server.sites[A] = lambda asked: answer("200 OK", "Content-Length: 1", "Content-Length: 2", body=b"xy")
    for call in calls(server.url).values():
        refused(call, Code.IMPORT_INVALID, "does not follow HTTP: several values of Content-Length")


@pytest.mark.parametrize("status", ["200 OK", "204 No Content"])
def test_a_creation_is_answered_by_201(server: LyingServer, status: str) -> None:
    server.sites[A] = but(POST=answer(status, f"Location: /{A}/{SECRET}", "Content-Length: 0"))
    invalid(calls(server.url)["POST"], f"a new upload was answered by {status[:3]}")


def test_a_provider_whose_own_url_can_not_be_asked_for_fails(server: LyingServer) -> None:
    to = Provider(name="site", export_url="http://site", import_url="http://[/import")
    for call in (
        lambda: imports().offer(to, "u", A),
        lambda: imports().offset(to, f"{server.url}/{A}/{SECRET}"),
    ):
        refused(call, Code.IMPORT_INVALID, r"^site has a URL that is not valid\.$")


OFFERS = "Tus-Version: 1.0.0", "Tus-Extension: creation"


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([], "its Tus-Version does not name 1.0.0"),
        (["Tus-Version: 0.2.2"], "its Tus-Version does not name 1.0.0"),
        (["Tus-Version: 1.0.0"], "its Tus-Extension does not name creation"),
        ([*OFFERS, "Tus-Max-Size: lots"], "Tus-Max-Size is missing or no number of bytes"),
    ],
)
def test_an_offer_is_of_the_version_that_is_spoken_here(
    server: LyingServer, headers: list[str], message: str
) -> None:
    server.sites[A] = but(OPTIONS=says("200 OK", *headers))
    invalid(calls(server.url)["OPTIONS"], message)


def test_an_offer_need_not_name_a_size(server: LyingServer) -> None:
    server.sites[A] = but(OPTIONS=says("200 OK", *OFFERS))
    assert calls(server.url)["OPTIONS"]() == ImportOffer(max_size=None)


# --- what became of an import


def told(server: LyingServer, body: bytes, *headers: str) -> Callable[[], object]:
    server.sites[A] = but(GET=says("200 OK", *headers, body=body))
    return calls(server.url)["GET"]


def test_the_state_of_an_import_is_told_with_when_to_ask_again(server: LyingServer) -> None:
    call = told(server, b'{"state": "processing", "message": null, "more": [1]}', "Retry-After: 9")
    assert call() == ImportOutcome("processing", None, timedelta(seconds=9))
    assert server.asked[A][0].headers["accept"] == "application/json"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("a file is missing", "a file is missing"),
        ("two\nlines\t\x1b[31mred\x7f\u2028\u202e end ", "two lines [31mred end"),
        ("x" * (MAX_MESSAGE + 1), "x" * MAX_MESSAGE),
        ("\x00\n", None),
        ("größer als möglich: \U0001f5dc", "größer als möglich: \U0001f5dc"),
    ],
)
def test_what_a_provider_says_is_made_fit_to_be_shown(
    server: LyingServer, message: str, shown: str | None
) -> None:
    call = told(server, json.dumps({"state": "failed", "message": message}).encode())
    assert call() == ImportOutcome("failed", shown)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"state": "unheard of"}',
        b'{"state": "done", "message": 5}',
        b'{"state": "done", "message": "\xff"}',
        b'{"state": "done", "more": ' + b"[" * 30_000,
        b'{"state": "do',
    ],
)
def test_a_state_that_can_not_be_read_breaks_the_rules(server: LyingServer, body: bytes) -> None:
    invalid(told(server, body), "the state of an import can't be read")


def test_the_state_of_an_import_is_read_only_so_far(server: LyingServer) -> None:
    body = b'{"state": "done"}'
    fits = told(server, body + b" " * (MAX_ANSWER_BYTES - len(body)))
    assert fits() == ImportOutcome("done")
    invalid(told(server, body + b" " * MAX_ANSWER_BYTES), f"an answer has more than {MAX_ANSWER_BYTES} bytes")
    server.sites[A] = but(GET=answer("200 OK", body=b" " * (8 << 20)))  # ends with its connection
    invalid(calls(server.url)["GET"], "an answer has more than")


def test_a_state_that_breaks_off_is_asked_for_again(server: LyingServer) -> None:
    server.sites[A] = but(GET=answer("200 OK", "Content-Length: 100", body=b'{"state": "done"}'))
    with pytest.raises(Transient, match=r"^The answer of site broke off: IncompleteRead\.$"):
        calls(server.url)["GET"]()


def test_a_trickling_state_has_come_whole_within_the_silence_or_is_given_up() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"
    with trickle(head, forever=b" ") as port, ends_in_time():
        url = f"http://127.0.0.1:{port}"
        imports(timeout=0.5).outcome(provider(url), f"{url}/{A}/{SECRET}")


# --- secrets


def test_the_url_of_an_upload_stands_in_no_error_and_no_log(
    server: LyingServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    lies: list[Lie] = [
        lambda asked: Answer(b""),
        lambda asked: Answer(b"", "reset"),
        lambda asked: Answer(f"HTTP/1.1 200 OK\r\n{SECRET}\r\nLocation: /{SECRET}\r\n\r\n".encode()),
        lambda asked: Answer(f"{SECRET} is no answer\r\n\r\n".encode()),
        lambda asked: says("400 Bad Request", f"X-Was: {SECRET}", body=SECRET.encode()),
        lambda asked: says("200 OK", body=SECRET.encode()),
        lambda asked: says("302 Found", f"Location: /{SECRET}"),
        but(POST=says("201 Created", f"Location: http://localhost/{SECRET}")),
    ]
    errors = []
    for lie in lies:
        server.sites[A] = lie
        for call in calls(server.url).values():
            try:
                call()
            except SiteBackupError as error:
                errors.append("".join(traceback.format_exception(error)))
    down = f"http://127.0.0.1:{server.port}"
    server.close()
    for call in calls(down).values():
        with pytest.raises(Transient) as raised:
            call()
        errors.append("".join(traceback.format_exception(raised.value)))
    assert len(errors) > 40
    assert not [error for error in errors if SECRET in error]
    assert SECRET not in caplog.text
