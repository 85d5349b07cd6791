"""PUTs to S3 in one pass: bytes go out while they come in, and their checksum follows them.

The body is `aws-chunked` with one chunk and a trailer, its payload unsigned. The trailing CRC64NVME protects it,
and on AWS also TLS, without which S3 refuses such a body:
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
"""

import base64
import os
import select
import ssl
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

import certifi
import urllib3
from awscrt import checksums
from botocore.awsrequest import AWSRequest
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ..domain.errors import Transient
from .source import Source

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUFFER_BYTES = 1024 * 1024
SEND_SECONDS = 60
_CHECKSUM = "x-amz-checksum-crc64nvme"
_CONNECTIONS = 32


class Sent(NamedTuple):
    """What S3 confirmed."""

    etag: str
    crc64nvme: str
    version_id: str | None


class Refused(Exception):
    """S3 answered an error: its HTTP status, and its code, which is the status where the body has none."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code


class OnePassPut:
    """Sends bodies from sources to one bucket; keeps its connections, and is shared by threads."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        """The client gives endpoint, region, timeouts and credentials, which it refreshes."""
        # boto3 has no public way to its signer; it is the one place that knows the credentials of the client.
        self._signer = client._request_signer  # type: ignore[attr-defined]
        self._region = client.meta.region_name
        endpoint = urlsplit(client.meta.endpoint_url)
        host, self._path = endpoint.netloc, f"{endpoint.path.rstrip('/')}/{bucket}/"
        if host.endswith((".amazonaws.com", ".amazonaws.com.cn")) and "." not in bucket:
            host, self._path = f"{bucket}.{host}", "/"
        self._origin = f"{endpoint.scheme}://{host}"
        timeout = urllib3.Timeout(
            connect=client.meta.config.connect_timeout,  # type: ignore[attr-defined]
            read=client.meta.config.read_timeout,  # type: ignore[attr-defined]
        )
        name, port = urlsplit(self._origin).hostname or "", endpoint.port
        self._buffers = deque[bytearray]()
        self._pool: HTTPConnectionPool
        if endpoint.scheme == "https":
            trusted = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or certifi.where())
            self._pool = HTTPSConnectionPool(
                name, port, maxsize=_CONNECTIONS, timeout=timeout, ssl_context=trusted
            )
            self._pool.ConnectionCls = _Patient
        else:
            self._pool = HTTPConnectionPool(name, port, maxsize=_CONNECTIONS, timeout=timeout)
            self._pool.ConnectionCls = _Listening

    def __call__(
        self,
        key: str,
        source: Source,
        length: int,
        *,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Sent:
        """Moves `length` bytes from the source; S3 stores them only if their checksum arrives as computed here.

        Raises Refused, Transient (S3 can't be reached, or the source ends before), and what the source raises.
        """
        path = f"{self._path}{quote(key, safe='/~')}"
        if query:
            path += f"?{urlencode(query, quote_via=quote, safe='~')}"
        buffer = self._buffer()
        body = _Body(source, length, buffer)
        signed = self._sign(path, {**(headers or {}), **body.headers()})
        try:
            answer = self._pool.urlopen(
                "PUT",
                path,
                body=cast(Iterator[bytes], iter(body)),
                headers=signed,
                retries=False,
                redirect=False,
                assert_same_host=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Transient(f"S3 can't be reached: {type(error).__name__}.") from error
        finally:
            self._buffers.append(buffer)
        if answer.status != 200:
            raise Refused(answer.status, _error_code(answer.status, answer.data))
        confirmed = answer.headers.get(_CHECKSUM)
        if confirmed != body.crc64nvme:
            raise Transient(f"S3 stored checksum {confirmed}, sent was {body.crc64nvme}.")
        return Sent(answer.headers.get("ETag", ""), confirmed, answer.headers.get("x-amz-version-id"))

    def _buffer(self) -> bytearray:
        """One that is free: fresh memory would be paged in anew for each part."""
        try:
            return self._buffers.pop()
        except IndexError:
            return bytearray(BUFFER_BYTES)

    def _sign(self, path: str, headers: dict[str, str]) -> dict[str, str]:
        """The headers with the signature over them; botocore's own, as the bytes stay unsigned."""
        request = AWSRequest(method="PUT", url=f"{self._origin}{path}", headers=headers)
        request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
        self._signer.get_auth_instance("s3", self._region, "s3v4").add_auth(request)
        return dict(request.headers.items())


class _Body:
    """An aws-chunked body: yields what is read from the source, in a buffer that is used again and again."""

    def __init__(self, source: Source, length: int, buffer: bytearray) -> None:
        self._source = source
        self._length = length
        self._buffer = buffer
        self._head = f"{length:x}\r\n".encode() if length else b""
        self.crc64nvme = ""
        """Known once the body has been sent."""

    def headers(self) -> dict[str, str]:
        tail = len(_tail(encode_crc(0), self._length))
        return {
            "Content-Length": str(len(self._head) + self._length + tail),
            "Content-Encoding": "aws-chunked",
            "X-Amz-Decoded-Content-Length": str(self._length),
            "X-Amz-Trailer": _CHECKSUM,
        }

    def __iter__(self) -> Iterator[bytes | memoryview]:
        buffer = memoryview(self._buffer)
        crc = moved = 0
        if self._head:
            yield self._head
        while moved < self._length:
            count = self._source.readinto(buffer[: self._length - moved])
            if count == 0:
                raise Transient(f"The export ended after {moved} of {self._length} bytes.")
            crc = checksums.crc64nvme(cast(bytes, buffer[:count]), crc)
            yield buffer[:count]
            moved += count
        self.crc64nvme = encode_crc(crc)
        yield _tail(self.crc64nvme, self._length)


class _Patient(HTTPSConnection):
    """urllib3 lets the body be sent under the time-out of the connect."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(SEND_SECONDS)


class _Listening(HTTPConnection):
    """Stops sending once an answer is there: it can only be a refusal, and S3 may have stopped reading.

    Not for TLS, where what has come may be the protocol's own.
    """

    _cut = False

    @property
    def is_connected(self) -> bool:
        """Never again once a body was cut: the server may still wait for the rest of it."""
        return not self._cut and super().is_connected

    def connect(self) -> None:
        super().connect()
        self._cut = False

    def send(self, data: Any) -> None:
        """Raises BrokenPipeError, after which urllib3 reads the answer, or TimeoutError."""
        if self.sock is None:
            self.connect()
        connection = self.sock
        connection.settimeout(SEND_SECONDS)
        poll = select.poll()
        poll.register(connection, select.POLLIN | select.POLLOUT)
        rest = memoryview(data)
        while rest:
            ready = poll.poll(SEND_SECONDS * 1000)
            if not ready:
                raise TimeoutError
            if ready[0][1] & select.POLLIN:
                self._cut = True
                raise BrokenPipeError
            rest = rest[connection.send(rest) :]


def encode_crc(crc: int) -> str:
    """As S3 writes a CRC64NVME: base64 of 8 bytes, big endian."""
    return base64.b64encode(struct.pack(">Q", crc)).decode()


def _tail(crc64nvme: str, length: int) -> bytes:
    """What follows the bytes: the end of their chunk, the last chunk, the trailer."""
    return f"{'\r\n' if length else ''}0\r\n{_CHECKSUM}:{crc64nvme}\r\n\r\n".encode()


def _error_code(status: int, document: bytes) -> str:
    try:
        code = ElementTree.fromstring(document).findtext("Code") if document else None
    except ElementTree.ParseError:
        code = None
    return code or str(status)
