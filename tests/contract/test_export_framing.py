"""Whatever a provider's answer looks like, an export counts as read only if its end is proven (RFC 9112, 6.3)."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from sitebackup.adapters.http_exports.exports import HttpExport, HttpExports
from sitebackup.domain.errors import ExportChanged, Permanent, Transient
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code
from tests.builders import LOOPBACK
from tests.fakes.exports import MemoryExport
from tests.lying_server import Answer, Asked, Lie, LyingServer, answer, chunked, part
from tests.simulation.service import PART_SIZE, SITE_ID, START, SimulatedService

PART = 64
TIMEOUT = 2.0
"""Seconds of silence."""
DATA = bytes(range(32, 232))
SITE = "site"
ETAG = '"1"'


@pytest.fixture(scope="module")
def server() -> Iterator[LyingServer]:
    server = LyingServer()
    yield server
    server.close()


def exports() -> HttpExports:
    """With no connection yet: the server closes those it has without a word."""
    return HttpExports(PART, TIMEOUT, lambda arn, since: "", lambda: datetime(2030, 1, 31, tzinfo=UTC))


def provider(server: LyingServer, **fields: Any) -> Provider:
    return Provider(
        name="site", export_url=f"{server.url}/{{siteId}}/export", allow_networks=LOOPBACK, **fields
    )


def read(export: HttpExport, at_once: int = 1000) -> bytes:
    data, buffer = bytearray(), memoryview(bytearray(at_once))
    while count := export.readinto(buffer):
        data += buffer[:count]
    return bytes(data)


@pytest.fixture
def probe(server: LyingServer) -> Any:
    """Opens the export of a server that tells this lie."""

    def probe(lie: Lie | Answer, length: int | None = PART, **fields: Any) -> HttpExport:
        server.sites[SITE] = lie if callable(lie) else lambda asked: lie
        return exports().probe(provider(server, **fields), "u", SITE, length)

    return probe


@pytest.fixture
def second_part(server: LyingServer) -> Any:
    """Opens the second part of an export that was planned with DATA's size."""

    def second_part(lie: Lie) -> HttpExport:
        server.sites[SITE] = lie
        return exports().open_range(provider(server), "u", SITE, PART, PART, ETAG, len(DATA))

    return second_part


# --- a body that ends with its connection


def test_a_body_that_ends_with_its_connection_proves_nothing(probe: Any) -> None:
    with probe(answer("200 OK", body=DATA)) as export:
        assert (export.size, export.end_proven) == (None, False)
        assert read(export) == DATA
    for framed in (
        answer("200 OK", f"Content-Length: {len(DATA)}", body=DATA),
        answer("200 OK", "Transfer-Encoding: chunked", body=chunked(DATA, 50)),
        part(Asked("", {"range": "bytes=0-999"}), DATA),
    ):
        with probe(framed, 1000) as export:
            assert export.end_proven
            assert read(export) == DATA


def test_a_body_that_ends_before_its_first_byte_was_cut(probe: Any) -> None:
    with (
        probe(answer("200 OK")) as export,
        pytest.raises(Transient, match=r"closed before its first byte"),
    ):
        read(export)


def test_an_end_that_nothing_will_prove_is_refused_at_once(probe: Any) -> None:
    with pytest.raises(Permanent, match=r"neither Content-Length nor chunked") as raised:
        probe(answer("200 OK", body=DATA), format="any")
    assert raised.value.reason.code is Code.EXPORT_INCOMPLETE


# --- chunked coding


@pytest.mark.parametrize("length", ["5", str(len(DATA)), "999", "0"])
def test_chunked_coding_wins_over_a_length(probe: Any, length: str) -> None:
    both = answer("200 OK", f"Content-Length: {length}", "Transfer-Encoding: chunked", body=chunked(DATA, 7))
    with probe(both) as export:
        assert (export.size, export.end_proven) == (None, True)
        assert read(export) == DATA


CHUNKS = {
    "the size in capitals": b"A\r\n0123456789\r\n0\r\n\r\n",
    "an extension": b'a;name="value"\r\n0123456789\r\n0;x\r\n\r\n',
    "zeros in front": b"0000a\r\n0123456789\r\n0000\r\n\r\n",
    "a trailer": b"a\r\n0123456789\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n",
    "no line behind the last chunk": b"a\r\n0123456789\r\n0\r\n",
}


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS.keys())
def test_chunks_of_every_form_are_read(probe: Any, body: bytes) -> None:
    with probe(answer("200 OK", "Transfer-Encoding: chunked", body=body)) as export:
        assert read(export, 3) == b"0123456789"


BROKEN_CHUNKS = {
    "no last chunk": b"a\r\n0123456789\r\n",
    "cut in a size that begins with zeros": b"a\r\n0123456789\r\n0",
    "cut in a chunk": b"a\r\n01234",
    "more in the chunk than it says": b"a\r\n0123456789ab0\r\n\r\n",
    "a size with a sign": b"+a\r\n0123456789\r\n0\r\n\r\n",
    "a size below zero": b"a\r\n0123456789\r\n-5\r\nabcde\r\n0\r\n\r\n",
    "a size that is none": b"ten\r\n0123456789\r\n0\r\n\r\n",
    "a trailer without end": b"a\r\n0123456789\r\n0\r\n" + b"X: 1\r\n" * 1000,
}


@pytest.mark.parametrize("body", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS.keys())
def test_chunks_whose_end_is_not_proven_broke_off(probe: Any, body: bytes) -> None:
    with (
        probe(answer("200 OK", "Transfer-Encoding: chunked", body=body)) as export,
        pytest.raises(Transient, match=r"^The export broke off"),
    ):
        read(export)


# --- framing that is none

FRAMING = {
    "two lengths": ["Content-Length: 200", "Content-Length: 100"],
    "a length twice": ["Content-Length: 200", "Content-Length: 200"],
    "a list of lengths": ["Content-Length: 200, 200"],
    "a length with a sign": ["Content-Length: +200"],
    "a length with an underscore": ["Content-Length: 2_00"],
    "a length below zero": ["Content-Length: -200"],
    "an empty length": ["Content-Length:"],
    "a length that no number holds": ["Content-Length: " + "9" * 5000],
    "another coding": ["Transfer-Encoding: gzip"],
    "a second coding": ["Transfer-Encoding: gzip, chunked"],
    "a coding in a second line": ["Transfer-Encoding: chunked", "Transfer-Encoding: gzip"],
    "no coding": ["Content-Length: 200", "Transfer-Encoding: identity"],
    "a blank before the colon": ["Content-Length : 200"],
    "a header without colon": ["Content-Length: 200", "nonsense", "Transfer-Encoding: chunked"],
}


@pytest.mark.parametrize("headers", FRAMING.values(), ids=FRAMING.keys())
@pytest.mark.parametrize("whole", [True, False], ids=["200", "206"])
def test_framing_that_can_be_read_in_two_ways_is_refused(probe: Any, headers: list[str], whole: bool) -> None:
    lie = answer("200 OK", *headers, body=DATA)
    with pytest.raises(Permanent) as raised:
        probe(lie if whole else lambda asked: part(asked, DATA, *headers))
    assert raised.value.reason.code is Code.EXPORT_INVALID
    assert raised.value.reason.message.startswith("site does not follow HTTP: ")
    assert len(raised.value.reason.message) < 300


def test_chunked_coding_is_not_of_http_1_0(probe: Any) -> None:
    with pytest.raises(Permanent, match=r"Transfer-Encoding"):
        probe(Answer(b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(DATA)))


# --- ranges


@pytest.mark.parametrize("headers", [["Transfer-Encoding: chunked"], []], ids=["chunked", "until it closes"])
@pytest.mark.parametrize("more", [1, 1000])
def test_a_body_longer_than_its_range_is_refused(
    probe: Any, second_part: Any, headers: list[str], more: int
) -> None:
    def lie(asked: Asked) -> Answer:
        start, end = asked.span or (0, 0)
        body = DATA[start:end] + b"x" * more
        return part(asked, DATA, *headers, body=chunked(body, 10) if headers else body)

    for opened in (probe, second_part):
        with opened(lie) as export, pytest.raises(Permanent, match=r"more than the 64 bytes") as raised:
            read(export, 10)
        assert raised.value.reason.code is Code.EXPORT_INVALID


@pytest.mark.parametrize("headers", [["Transfer-Encoding: chunked"], []], ids=["chunked", "until it closes"])
def test_a_body_shorter_than_its_range_broke_off(probe: Any, second_part: Any, headers: list[str]) -> None:
    def lie(asked: Asked) -> Answer:
        start, end = asked.span or (0, 0)
        body = DATA[start : end - 1]
        return part(asked, DATA, *headers, body=chunked(body, 10) if headers else body)

    for opened in (probe, second_part):
        with opened(lie) as export, pytest.raises(Transient, match=r"^The export broke off"):
            read(export, 10)


def test_another_total_is_another_export(second_part: Any) -> None:
    with pytest.raises(ExportChanged):
        second_part(lambda asked: part(asked, DATA, "Content-Length: 64", total=len(DATA) + 1))


def test_the_body_of_a_416_is_not_the_export(probe: Any) -> None:
    empty = answer(
        "416 Range Not Satisfiable", "Content-Range: bytes */0", "Content-Length: 9", body=b"no range."
    )
    with probe(empty) as export:
        assert (export.size, read(export)) == (0, b"")


# --- at random: a whole job on in-memory storage, its export on a socket

VERSIONS = {'"1"': b"abcdefghijklm", '"2"': b"nopqrstuvwxyzab", '"3"': b"abcd", '"4"': b""}


def mostly[T](usual: T, *others: T) -> st.SearchStrategy[T]:
    """Three of four times the usual value, so that whole jobs get through."""
    return st.integers(0, 3).flatmap(lambda n: st.just(usual) if n else st.sampled_from(others))


@dataclass(frozen=True)
class Framing:
    """How a body is sent. Only lies that show: less than the whole under its very length is whole, for HTTP."""

    kind: str
    nonsense: list[str]
    off: int
    sizes: list[int]
    zeros: bytes
    wrong: int
    tail: bytes
    cut: int
    then: Literal["close", "keep", "reset"]
    behind: bytes

    def send(self, head: list[str], data: bytes, *, ranged: bool) -> Answer:
        lengths = [f"Content-Length: {max(len(data) + self.off, 0 if ranged else len(data))}"]
        coding = ["Transfer-Encoding: chunked"]
        headers = {"length": lengths, "chunked": coding, "both": lengths + coding, "close": []}
        is_chunked = self.kind in ("chunked", "both")
        body = self._chunks(data) if is_chunked else data
        kept = body[: len(body) - self.cut]
        sent = "\r\n".join([*head, *headers.get(self.kind, self.nonsense), "", ""]).encode() + kept
        if not self.cut and (self.tail if is_chunked else self.kind == "length" and not self.off):
            return Answer(sent + self.behind, self.then)
        return Answer(sent, "reset" if self.then == "reset" else "close")  # what is missing never comes

    def _chunks(self, data: bytes) -> bytes:
        body, sizes = b"", cycle(self.sizes)
        while data:
            piece = data[: next(sizes)]
            data = data[len(piece) :]
            size = max(len(piece) + (0 if data else self.wrong), 1)
            body += self.zeros + b"%x\r\n%b\r\n" % (size, piece)
        return body + self.tail


FRAMINGS = st.builds(
    Framing,
    kind=st.sampled_from([*["length", "chunked", "both"] * 3, "close", "nonsense"]),
    nonsense=st.sampled_from(list(FRAMING.values())),
    off=mostly(0, -1, 1, 1000),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    zeros=st.sampled_from([b"", b"000"]),
    wrong=mostly(0, 1, -1),
    tail=mostly(b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"0000\r\n\r\n", b""),
    cut=mostly(0, 1, 2, 3, 4, 5, 6, 7, 10),
    then=st.sampled_from(["close", "keep", "reset"]),
    behind=mostly(b"", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", b"x"),
)


@dataclass(frozen=True)
class Told:
    """One answer: of a version, whole or the range asked for or one beside it, with its validator or none."""

    etag: str
    shown: str
    ranged: bool
    shift: int
    total: int
    surplus: bytes
    framing: Framing

    def __call__(self, asked: Asked) -> Answer:
        data = VERSIONS[self.etag]
        shown = [f"ETag: {self.shown}{self.etag}"] if self.shown != "none" else []
        if not self.ranged or asked.span is None:
            return self.framing.send(["HTTP/1.1 200 OK", *shown], data, ranged=False)
        start, end = max(asked.span[0] + self.shift, 0), min(asked.span[1] + self.shift, len(data))
        if start >= end:
            said = f"Content-Range: bytes */{len(data)}"
            return self.framing.send(["HTTP/1.1 416 Range Not Satisfiable", said], b"no", ranged=True)
        said = f"Content-Range: bytes {start}-{end - 1}/{len(data) + self.total}"
        head = ["HTTP/1.1 206 Partial Content", said, *shown]
        return self.framing.send(head, data[start:end] + self.surplus, ranged=True)


TOLD = st.builds(
    Told,
    etag=mostly('"1"', *VERSIONS),
    shown=mostly("", "W/", "none"),
    ranged=st.sampled_from([True, True, False]),
    shift=mostly(0, 1, -1),
    total=mostly(0, 1),
    surplus=mostly(b"", b"x", b"xyz" * 50),
    framing=FRAMINGS,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(TOLD, min_size=1, max_size=12))
def test_done_means_the_very_bytes_of_one_version(server: LyingServer, told: list[Told]) -> None:
    """`format: "any"`, so that nothing but the framing proves anything."""
    answers = cycle(told)
    server.sites[SITE_ID] = lambda asked: next(answers)(asked)
    service = SimulatedService(
        {"site": MemoryExport(b"")},
        export_api=HttpExports(PART_SIZE, TIMEOUT, lambda arn, since: "", lambda: START),
        export_url=provider(server).export_url,
    )
    service.finish()
    assert not service.unexpected, service.unexpected[0]
    job = service.job
    event(f"{job.status} {job.reason and job.reason.code}")
    stored = job.tasks["site"].object
    if stored:
        assert stored.version_id is not None
        assert service.storage.versions[stored.key][stored.version_id] in VERSIONS.values()
