"""Where requests to providers go: never to an address that they may not have, whatever names and answers say."""

import contextlib
import socket
import ssl
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from sitebackup.adapters.http_exports.exports import HttpExports
from sitebackup.adapters.outgoing import Guard, SocketAddress, look_up
from sitebackup.adapters.provider_http import prepared
from sitebackup.adapters.tus_imports.imports import TusImports
from sitebackup.domain.errors import NoSuchImport, Permanent, SiteBackupError, Transient
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code
from sitebackup.ports.providers import ImportTarget
from tests.addresses import METADATA, SPECIAL
from tests.contract import wire

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)
TARGET = ImportTarget("u", "s", "job", "restore", "AAAAAAAAAAA=")
OWN = "127.0.0.2"
"""Where the provider is; its `allowNetworks` name nothing else."""
TRAP = "127.0.0.1"
"""Where it must not lead to."""
EXPORT = wire.answer("200 OK", body="the export")
NAMES_OF_LOOPBACK = [
    *("127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "2130706433", "017700000001", "0x7f000001", "0x7F.1"),
    *("0177.0.0.1", "127.0.0.01", "0x7f.0x0.0x0.0x1", "0", "0.0.0.0", "127.255.255.254"),
    *("localhost", "LOCALHOST", "localhost.", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "１２７.０.０.１", "127。0。0。1"),
    *("user@127.0.0.1", "127.0.0.2@127.0.0.1", "user:secret@[::1]", "%31%32%37.0.0.1", "127.0.0.1%2e"),
    *("[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::FFFF:7F00:0001]"),
    *("[::127.0.0.1]", "[64:ff9b::7f00:1]", "[fe80::1%25lo]", "[fe80::1%lo]"),
]
NAMES_OF_METADATA = [
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "0xa9.0xfe.0xa9.0xfe",
]
FORMS = [
    *NAMES_OF_LOOPBACK,
    *NAMES_OF_METADATA,
    *(f"[{address}]" if ":" in address else address for address in (*SPECIAL, *METADATA) if address != OWN),
]
NO_HOSTS = {
    *("127.0.0.1.", "127.0.0.1%2e", "localhost.", "[fe80::1%25lo]", "[fe80::1%lo]"),
    *("ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "１２７.０.０.１", "127。0。0。1"),
}
"""Forms that are no host at all for some resolvers, or for requests, which is fine too."""


class Trap:
    """Listens on every address of this machine, where nothing must arrive."""

    def __init__(self, host: str = "", port: int = 0) -> None:
        if host:
            self._listener = socket.create_server((host, port))
        else:
            dual = socket.has_dualstack_ipv6()
            family = socket.AF_INET6 if dual else socket.AF_INET
            self._listener = socket.create_server(("", 0), family=family, dualstack_ipv6=dual)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]

    def is_reached(self) -> bool:
        """A connection that was made waits here, whether it was closed or not."""
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def trap() -> Iterator[Trap]:
    with contextlib.closing(Trap()) as trap:
        yield trap


class Names:
    """A name server that gives `localhost` the next answer at each look, and its last one from then on."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)
        self.looks = 0

    def __call__(self, host: str, port: int) -> list[tuple[int, SocketAddress]]:
        if host != "localhost":
            return look_up(host, port)
        self.looks += 1
        now = self._answers[0] if len(self._answers) == 1 else self._answers.pop(0)
        return [(socket.AF_INET, (address, port)) for address in now]


@dataclass
class Place:
    """A provider's server, at OWN; each connection answers requests by `answers`, and by its last from then on."""

    port: int = 0
    scheme: str = "http"
    answers: list[bytes] = field(default_factory=lambda: [EXPORT])
    keeps: bool = False
    heads: list[str] = field(default_factory=list)
    named: list[str | None] = field(default_factory=list)
    """By SNI."""

    def url(self, host: str = OWN) -> str:
        return f"{self.scheme}://{host}:{self.port}"

    def serve(self, client: socket.socket) -> None:
        while head := _head(client):
            self.heads.append(head)
            answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
            if self.keeps:
                client.sendall(answer)
            else:
                client.sendall(answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                return


def _head(client: socket.socket) -> str:
    data = b""
    while not data.endswith(b"\r\n\r\n") and (more := client.recv(65536)):
        data += more
    return data.decode()


@contextlib.contextmanager
def place(tls: ssl.SSLContext | None = None, *answers: bytes, keeps: bool = False) -> Iterator[Place]:
    here = Place(scheme="https" if tls else "http", answers=list(answers) or [EXPORT], keeps=keeps)
    if tls:
        tls.sni_callback = lambda connection, name, context: here.named.append(name)
    with wire.serving(here.serve, tls, OWN) as server:
        here.port = server.port
        yield here


@pytest.fixture(params=["http", "https"])
def tls(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> ssl.SSLContext | None:
    """Of the provider's server: None for http."""
    if request.param == "http":
        return None
    context, trusted = wire.certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    return context


def provider(url: str, *hosts: str, allow: tuple[str, ...] = (OWN,)) -> Provider:
    return Provider(name="site", export_url=url, import_url=url, redirect_hosts=hosts, allow_networks=allow)


def exports(names: Callable[[str, int], Any] = look_up) -> HttpExports:
    return HttpExports(100, 2.0, lambda arn, since: "", lambda: NOW, names)


def imports(names: Callable[[str, int], Any] = look_up) -> TusImports:
    return TusImports(2.0, lambda arn, since: "", lambda: NOW, names)


def fetch(api: HttpExports, of: Provider) -> bytes:
    with api.probe(of, "u", "s", None) as export:
        buffer = memoryview(bytearray(1000))
        return bytes(buffer[: export.readinto(buffer)])


def refused(call: Callable[[], object], code: Code) -> None:
    with pytest.raises(Permanent) as raised:
        call()
    assert raised.value.reason.code is code
    assert raised.value.reason.message == (
        "site leads to an address that is not public, nor among its allowNetworks."
    )
    told = "".join(traceback.format_exception(raised.value))
    assert not any(secret in told for secret in (TRAP, OWN, "169.254.169.254"))


# --- every form of an address


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_form_of_an_address_leads_an_export_a_redirect_or_an_import_where_it_must_not(
    trap: Trap, scheme: str, form: str
) -> None:
    there = f"{scheme}://{form}:{trap.port}"
    try:
        hosts = [urlsplit(prepared(there)).hostname or ""]
    except ValueError:
        hosts = []
    own = wire.answer("302 Found", f"Location: {there}/")
    made = wire.answer("201 Created", f"Location: {there}/upload")
    with place(None, own) as redirecting, place(None, made) as creating:
        to, direct = provider(creating.url(), *hosts), provider(there, *hosts)
        ways: dict[str, Callable[[], object]] = {
            "an export": lambda: exports().probe(direct, "u", "s", None),
            "a redirect": lambda: exports().probe(provider(redirecting.url(), *hosts), "u", "s", None),
            "an import": lambda: imports().create(direct, TARGET, 5),
            "an upload that was made": lambda: imports().offset(to, imports().create(to, TARGET, 5)),
            "an upload that was stored": lambda: imports().send(to, f"{there}/upload", 0, memoryview(b"x")),
            "an upload that is of no use": lambda: imports().delete(to, f"{there}/upload"),
        }
        for name, way in ways.items():
            with pytest.raises(SiteBackupError) as raised:
                way()
            assert not trap.is_reached(), name
            if form not in NO_HOSTS:
                assert isinstance(raised.value, Permanent), name
                assert raised.value.reason.code.value.endswith("_address_refused"), name


def test_what_is_allowed_is_reached_by_the_same_ways() -> None:
    """Else the test above would show nothing."""
    with place() as there, place(None, wire.answer("302 Found", f"Location: {there.url()}/")) as redirecting:
        assert fetch(exports(), provider(there.url())) == b"the export"
        assert fetch(exports(), provider(redirecting.url())) == b"the export"
    with place(None, wire.answer("200 OK", "Upload-Offset: 1")) as there:
        assert imports().offset(provider(there.url()), there.url()) == 1


# --- names whose answers change


def test_a_name_is_looked_up_once_and_the_address_that_was_checked_is_the_one_that_is_asked(
    tls: ssl.SSLContext | None,
) -> None:
    """The machine's own resolver says that `localhost` is the trap, as this one does at a second look."""
    names = Names([OWN], [TRAP])
    with place(tls) as own, contextlib.closing(Trap(TRAP, own.port)) as trap:
        assert fetch(exports(names), provider(own.url("localhost"))) == b"the export"
        assert names.looks == 1
        assert not trap.is_reached()
        assert f"Host: localhost:{own.port}" in own.heads[0]
        assert own.named == (["localhost"] if tls else [])


def test_a_name_that_leads_elsewhere_at_the_next_connection_is_checked_again(
    tls: ssl.SSLContext | None,
) -> None:
    names = Names([OWN], [TRAP])
    api = exports(names)
    with place(tls) as own, contextlib.closing(Trap(TRAP, own.port)) as trap:
        of = provider(own.url("localhost"))
        assert fetch(api, of) == b"the export"
        refused(lambda: fetch(api, of), Code.EXPORT_ADDRESS_REFUSED)
        assert names.looks == 2
        assert not trap.is_reached()


def test_a_redirect_to_a_name_that_changes_its_answer_goes_where_was_checked(
    tls: ssl.SSLContext | None,
) -> None:
    with place(tls) as own, contextlib.closing(Trap(TRAP, own.port)) as trap:
        with place(None, wire.answer("302 Found", f"Location: {own.url('localhost')}/data")) as first:
            of = provider(first.url(), "localhost")
            assert fetch(exports(Names([OWN], [TRAP])), of) == b"the export"
            refused(lambda: fetch(exports(Names([TRAP], [OWN])), of), Code.EXPORT_ADDRESS_REFUSED)
        assert not trap.is_reached()


def test_an_import_to_a_name_that_changes_its_answer_goes_where_was_checked(
    tls: ssl.SSLContext | None,
) -> None:
    created = wire.answer("201 Created", "Location: /upload")
    at_one = wire.answer("200 OK", "Upload-Offset: 1", "Upload-Length: 5")
    names = Names([OWN], [OWN], [TRAP])
    api = imports(names)
    with place(tls, created, at_one) as own, contextlib.closing(Trap(TRAP, own.port)) as trap:
        of = provider(own.url("localhost"))
        upload = api.create(of, TARGET, 5)
        assert api.offset(of, upload) == 1
        assert names.looks == 2
        code = Code.IMPORT_ADDRESS_REFUSED
        refused(lambda: api.offset(of, upload), code)
        refused(lambda: api.send(of, upload, 1, memoryview(b"data")), code)
        refused(lambda: api.outcome(of, upload), code)
        refused(lambda: api.delete(of, upload), code)
        refused(lambda: api.create(of, TARGET, 5), code)
        refused(lambda: api.offer(of, "u", "s"), code)
        assert not trap.is_reached()


def test_of_several_addresses_only_those_that_are_allowed_are_tried(tls: ssl.SSLContext | None) -> None:
    with place(tls) as own, contextlib.closing(Trap(TRAP, own.port)) as trap:
        of = provider(own.url("localhost"), allow=("127.0.0.2/31",))  # nobody listens at 127.0.0.3
        assert fetch(exports(Names([TRAP, "127.0.0.3", OWN])), of) == b"the export"
        assert not trap.is_reached()


def test_a_certificate_must_be_that_of_the_name_and_not_of_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, trusted = wire.certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(trusted))
    with place(tls) as own, pytest.raises(Transient, match="SSLError"):
        fetch(exports(), provider(own.url()))  # it is for localhost and 127.0.0.1


# --- what connections are kept for


def test_a_connection_that_is_kept_serves_its_own_rule_alone() -> None:
    names = Names([OWN])
    api = exports(names)
    with place(keeps=True) as own:
        allowed, strict = provider(own.url("localhost")), provider(own.url("localhost"), allow=())
        for _ in range(3):
            assert fetch(api, allowed) == b"the export"
        assert names.looks == 1
        refused(lambda: fetch(api, strict), Code.EXPORT_ADDRESS_REFUSED)
        assert names.looks == 2
        assert len(own.heads) == 3


# --- uploads that are older than the settings


def test_an_upload_on_a_host_that_is_no_longer_listed_counts_as_lost() -> None:
    with place(None, wire.answer("200 OK", "Upload-Offset: 1")) as there, place() as own:
        upload = there.url("localhost")
        api = imports(Names([OWN]))
        assert api.offset(provider(own.url(), "localhost"), upload) == 1
        now = provider(own.url())
        for call in (
            lambda: api.offset(now, upload),
            lambda: api.send(now, upload, 0, memoryview(b"x")),
            lambda: api.outcome(now, upload),
        ):
            with pytest.raises(NoSuchImport):
                call()
        with pytest.raises(Permanent, match=r"^site has no uploads there any longer\.$") as raised:
            api.delete(now, upload)
        assert raised.value.reason.code is Code.IMPORT_ADDRESS_REFUSED
        assert len(there.heads) == 1


# --- time


def test_addresses_that_do_not_answer_share_the_time_there_is() -> None:
    """A full queue of connections makes a server that does not answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent, contextlib.ExitStack() as stack:
        address = silent.getsockname()
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        guard = Guard([ip_network("127.0.0.0/8")], lambda host, port: [(socket.AF_INET, address)] * 20)
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            guard.connect("localhost", 1, 0.5)
        assert time.monotonic() - begun < 5, "each waited for all of it"


def test_an_address_of_a_family_that_the_machine_lacks_is_passed_over() -> None:
    lacking = 200
    with place() as own:
        guard = Guard(
            [ip_network(OWN)], lambda host, port: [(lacking, (OWN, port)), (socket.AF_INET, (OWN, port))]
        )
        guard.connect("localhost", own.port, 2.0).close()
