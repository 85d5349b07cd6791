"""Servers on loopback that stand between a client and a server, or answer from a script."""

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

LIMIT_SECONDS = 20.0
type Alter = Callable[[bytes], bytes]


def unchanged(data: bytes) -> bytes:
    return data


@dataclass
class Wire:
    """What was seen of the connections to one of these servers."""

    port: int = 0
    accepted: int = 0
    sent: list[bytes] = field(default_factory=list)
    """The requests as far as the script read them."""


@contextmanager
def proxy(target: int, alter: Alter = unchanged, tls: ssl.SSLContext | None = None) -> Iterator[Wire]:
    """Forwards to the port `target`; `alter` changes what clients send (b"" cuts the connection)."""

    def forward(client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", target), LIMIT_SECONDS) as server:
            back = threading.Thread(target=_pump, args=(server, client, unchanged), daemon=True)
            back.start()
            _pump(client, server, alter)
            back.join(LIMIT_SECONDS)

    with serving(forward, tls) as wire:
        yield wire


@contextmanager
def script(
    answer: bytes, read_first: int, *, until: bytes = b"", hold: threading.Event | None = None
) -> Iterator[Wire]:
    """Reads so many bytes of a request, and on to `until`; answers, and closes: at once, or after `hold`."""

    def serve(client: socket.socket) -> None:
        data = b""
        while (len(data) < read_first or not data.endswith(until)) and (more := client.recv(65536)):
            data += more
        wire.sent.append(data)
        client.sendall(answer)
        if hold:
            hold.wait(LIMIT_SECONDS)

    with serving(serve) as wire:
        yield wire


def answer(status: str, *headers: str, body: str = "") -> bytes:
    """An HTTP answer."""
    head = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"]
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's TLS context for 127.0.0.1 and localhost, and the file that makes a client trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    trusted, private = folder / "trusted.pem", folder / "private.pem"
    trusted.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return context, trusted


@contextmanager
def serving(
    serve: Callable[[socket.socket], object], tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> Iterator[Wire]:
    """Calls `serve` for each connection, in a thread of its own; the connection is closed behind it."""
    wire = Wire()
    clients: list[socket.socket] = []

    def one(client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            client.settimeout(LIMIT_SECONDS)
            if tls:
                client = tls.wrap_socket(client, server_side=True)
            serve(client)
        client.close()

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                clients.append(client)
                wire.accepted += 1
                threading.Thread(target=one, args=(client,), daemon=True).start()

    with socket.create_server((host, 0)) as listener:
        wire.port = listener.getsockname()[1]
        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield wire
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            accepting.join(LIMIT_SECONDS)
            for client in clients:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)


def _pump(source: socket.socket, sink: socket.socket, alter: Alter) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            data = alter(data)
            if not data:
                break
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
    if not isinstance(source, ssl.SSLSocket):
        with contextlib.suppress(OSError):
            source.shutdown(socket.SHUT_RD)


def head_of(client: socket.socket) -> bytes:
    """The head of the next request, and what came with it."""
    head = b""
    while b"\r\n\r\n" not in head and (more := client.recv(1000)):
        head += more
    return head
