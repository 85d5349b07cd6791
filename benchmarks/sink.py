"""`python -m benchmarks.sink PORT [CERTIFICATE KEY]`: takes S3 uploads and forgets them.

For when the server is not to be the limit. It knows just what the clients of the benchmark ask for, checks
nothing, and confirms what it is told: an object's size is what came, its checksum the one of the
CompleteMultipartUpload or of the trailer. Plain bodies are dropped by the kernel (recv with MSG_TRUNC), so that it
costs next to nothing.
"""

import contextlib
import re
import socket
import ssl
import sys
import threading
import uuid
from urllib.parse import parse_qs, urlsplit

TRUNC = socket.MSG_TRUNC if sys.platform == "linux" else 0
TAIL = 256  # bytes of a body that are kept: the trailer is there
CHECKSUM = "x-amz-checksum-crc64nvme"


class Sink:
    def __init__(self) -> None:
        self.sizes: dict[str, dict[str, int]] = {}
        """Of each object, by the numbers of its parts: they come at the same time, and one may come again."""
        self.checksums: dict[str, str] = {}

    def connection(self, client: socket.socket, tls: ssl.SSLContext | None) -> None:
        with contextlib.suppress(OSError, ValueError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                client = tls.wrap_socket(client, server_side=True)
            data = b""
            while True:
                while b"\r\n\r\n" not in data:
                    more = client.recv(65536)
                    if not more:
                        return
                    data += more
                head, _, data = data.partition(b"\r\n\r\n")
                request, *lines = head.decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
                if headers.get("expect"):
                    client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
                length = int(headers.get("content-length", "0"))
                if headers.get("transfer-encoding") == "chunked":
                    data, body = b"", _drain_chunks(client, data)
                else:
                    body = _drain(client, data, length, keep_all=request.startswith("POST"))
                    data = data[length:]
                client.sendall(self.answer(request, headers, length, body))
        client.close()

    def answer(self, request: str, headers: dict[str, str], length: int, tail: bytes) -> bytes:
        method, target, _ = request.split(" ")
        url = urlsplit(target)
        query = parse_qs(url.query, keep_blank_values=True)
        size = int(headers.get("x-amz-decoded-content-length", length))
        trailer = re.search(rf"{CHECKSUM}:([\w+/=]+)".encode(), tail)
        crc = headers.get(CHECKSUM) or (trailer[1].decode() if trailer else "")
        confirmed = [f"{CHECKSUM}: {crc}"] if crc else []
        etag = f'ETag: "{uuid.uuid4().hex}-1"'  # not of the form of an MD5, which clients would compare
        if "location" in query or url.path.count("/") < 2:
            return response(200, [], "<LocationConstraint/>")
        if method == "POST" and "uploads" in query:
            self.sizes[url.path] = {}
            body = f"<UploadId>{uuid.uuid4().hex}</UploadId>"
            return response(200, [], f"<InitiateMultipartUploadResult>{body}</InitiateMultipartUploadResult>")
        if method == "POST":
            self.checksums[url.path] = crc
            return response(
                200, [], "<CompleteMultipartUploadResult><ETag>x-1</ETag></CompleteMultipartUploadResult>"
            )
        if method == "PUT":
            self.sizes.setdefault(url.path, {})[query.get("partNumber", ["1"])[0]] = size
            return response(200, [etag, "x-amz-version-id: 1", *confirmed])
        if method == "HEAD" and url.path in self.sizes:
            known = self.checksums.get(url.path)
            fields = [etag, f"Content-Length: {sum(self.sizes[url.path].values())}"]
            fields.append("Last-Modified: Mon, 05 Jan 2026 00:00:00 GMT")
            return response(200, [*fields, *([f"{CHECKSUM}: {known}"] if known else [])], None)
        if method == "DELETE":
            return response(204, [])
        return response(404, [], "" if method == "HEAD" else "<Error><Code>NoSuchKey</Code></Error>")


def _drain(client: socket.socket, data: bytes, length: int, keep_all: bool) -> bytes:
    kept = data[:length]
    left = length - len(kept)
    flags = 0 if isinstance(client, ssl.SSLSocket) else TRUNC
    scratch = bytearray(1 << 20)
    while left:
        if left > TAIL and not keep_all:
            count = client.recv_into(scratch, min(left - TAIL, len(scratch)), flags)
        else:
            more = client.recv(left)
            kept += more
            count = len(more)
        if count == 0:
            raise ConnectionError
        left -= count
    return kept


def _drain_chunks(client: socket.socket, tail: bytes) -> bytes:
    """The AWS CLI's way over TLS. The end is taken from how it looks: random bytes at the end of a read do not."""
    scratch = bytearray(1 << 20)
    while not (b"\r\n" + tail).endswith(b"\r\n0\r\n\r\n"):  # an empty body is the end alone
        count = client.recv_into(scratch)
        if count == 0:
            raise ConnectionError
        tail = (tail + scratch[max(0, count - TAIL) : count])[-TAIL:]
    return tail


def response(status: int, headers: list[str], body: str | None = "") -> bytes:
    lines = [f"HTTP/1.1 {status} -", "Connection: keep-alive", *headers]
    if body is not None and status != 204:
        lines.append(f"Content-Length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n" + (body or "")).encode()


def main(sink: Sink, arguments: list[str]) -> None:
    """`PORT`, or `PORT CERTIFICATE KEY`."""
    tls = None
    if len(arguments) > 1:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(arguments[1], arguments[2])
    with socket.create_server(("127.0.0.1", int(arguments[0])), backlog=128) as listener:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=sink.connection, args=(client, tls), daemon=True).start()


if __name__ == "__main__":
    main(Sink(), sys.argv[1:])
