"""PUTs to S3, whose bytes a CRC64NVME protects, and on AWS also TLS: the payload stays unsigned.

What is read while it is sent goes as `aws-chunked` with one chunk, its checksum in a trailer behind it:
https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming-trailers.html
Bytes in memory go as they are, their checksum in the head:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

import os
import select
import ssl
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree

import certifi
import urllib3
from awscrt import checksums
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from ...domain.checksum import encode_crc
from ...domain.errors import Transient
from ...ports.runtime import Reader, TimeLeft, no_deadline
from ..timed_http import TimedAnswer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUFFER_BYTES = 1024 * 1024
SEND_SECONDS = 60
"""How long S3 may take none of a buffer."""
_CHECKSUM = "x-amz-checksum-crc64nvme"
_CONNECTIONS = 32
_UNSIGNED = Config(s3={"payload_signing_enabled": False})


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
        self._connect_seconds: float = client.meta.config.connect_timeout  # type: ignore[attr-defined]
        self._answer_seconds: float = client.meta.config.read_timeout  # type: ignore[attr-defined]
        name, port = urlsplit(self._origin).hostname or "", endpoint.port
        self._buffers = deque[bytearray]()
        self._pool: HTTPConnectionPool
        if endpoint.scheme == "https":
            trusted = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE") or certifi.where())
            self._pool = HTTPSConnectionPool(name, port, maxsize=_CONNECTIONS, ssl_context=trusted)
            self._pool.ConnectionCls = _Patient
        else:
            self._pool = HTTPConnectionPool(name, port, maxsize=_CONNECTIONS)
            self._pool.ConnectionCls = _Listening

    def moving(
        self,
        key: str,
        source: Reader,
        length: int,
        *,
        query: Mapping[str, str | int],
        time_left: TimeLeft = no_deadline,
    ) -> Sent:
        """Moves `length` bytes from the source; S3 stores them only if their checksum arrives as computed here.

        Waits no longer for S3 than the time that is left.

        Raises Refused, Transient (S3 can't be reached, or the source ends before), and what the source raises.
        """
        buffer = self._buffer()
        try:
            return self._send(key, _MovingBody(source, length, buffer, time_left), query, {})
        finally:
            self._buffers.append(buffer)

    def held(
        self,
        key: str,
        data: memoryview,
        *,
        query: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        time_left: TimeLeft = no_deadline,
    ) -> Sent:
        """Sends bytes that are in memory, likewise."""
        return self._send(key, _HeldBody(data, time_left), query or {}, headers or {})

    def _send(
        self, key: str, body: "_Body", query: Mapping[str, str | int], headers: Mapping[str, str]
    ) -> Sent:
        path = f"{self._path}{quote(key, safe='/~')}"
        if query:
            path += f"?{urlencode(query, quote_via=quote, safe='~')}"
        signed = self._sign(path, {**headers, **body.headers()}, body.checksum_at)
        try:
            answer = self._pool.urlopen(
                "PUT",
                path,
                body=cast(Iterator[bytes], body),
                headers=signed,
                timeout=urllib3.Timeout(
                    connect=_within(self._connect_seconds, body.time_left),
                    read=self._answer_seconds,
                ),
                retries=False,
                redirect=False,
                assert_same_host=False,
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Transient(f"S3 can't be reached: {type(error).__name__}.") from error
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

    def _sign(self, path: str, headers: dict[str, str], checksum_at: str) -> dict[str, str]:
        """The headers with the signature over them; botocore's own, as the bytes stay unsigned."""
        request = AWSRequest(method="PUT", url=f"{self._origin}{path}", headers=headers)
        request.context["checksum"] = {"request_algorithm": {"in": checksum_at, "name": _CHECKSUM}}
        request.context["client_config"] = _UNSIGNED
        self._signer.get_auth_instance("s3", self._region, "s3v4").add_auth(request)
        return dict(request.headers.items())


class _Body(Protocol):
    """What a PUT sends."""

    checksum_at: str
    """header or trailer, as botocore's signer calls them."""
    crc64nvme: str
    """Known once the body has been sent."""
    time_left: TimeLeft

    def headers(self) -> dict[str, str]: ...

    def __iter__(self) -> Iterator[bytes | memoryview]: ...


class _HeldBody:
    """Bytes in memory, in slices as long as the buffer of the others."""

    checksum_at = "header"

    def __init__(self, data: memoryview, time_left: TimeLeft) -> None:
        self._data = data
        self.crc64nvme = encode_crc(checksums.crc64nvme(cast(bytes, data)))
        self.time_left = time_left

    def headers(self) -> dict[str, str]:
        return {"Content-Length": str(len(self._data)), _CHECKSUM: self.crc64nvme}

    def __iter__(self) -> Iterator[memoryview]:
        for start in range(0, len(self._data), BUFFER_BYTES):
            yield self._data[start : start + BUFFER_BYTES]


class _MovingBody:
    """An aws-chunked body: yields what is read from the source, in a buffer that is used again and again."""

    checksum_at = "trailer"

    def __init__(self, source: Reader, length: int, buffer: bytearray, time_left: TimeLeft) -> None:
        self._source = source
        self._length = length
        self._buffer = buffer
        self._head = f"{length:x}\r\n".encode() if length else b""
        self.crc64nvme = ""
        self.time_left = time_left

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


class _Timed(HTTPConnection):
    """Waits for S3 no longer than the body's time lasts."""

    response_class = TimedAnswer
    _time_left: TimeLeft = staticmethod(no_deadline)

    def request(self, method: str, url: str, body: Any = None, *arguments: Any, **more: Any) -> None:
        self._time_left = body.time_left
        super().request(method, url, body, *arguments, **more)

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        self.timeout = _within(cast(float, self.timeout), self._time_left)
        return super().getresponse()


class _Patient(_Timed, HTTPSConnection):
    """urllib3 lets the body be sent under the time-out of the connect."""

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()
        self.sock.settimeout(_within(SEND_SECONDS, self._time_left))
        super().send(data)


class _Listening(_Timed):
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
        poll = select.poll()
        poll.register(connection, select.POLLIN | select.POLLOUT)
        rest = memoryview(data)
        while rest:
            ready = poll.poll(_within(SEND_SECONDS, self._time_left) * 1000)
            if not ready:
                raise TimeoutError
            if ready[0][1] & select.POLLIN:
                self._cut = True
                raise BrokenPipeError
            rest = rest[connection.send(rest) :]


def _within(seconds: float, time_left: TimeLeft) -> float:
    """As many of the seconds as are left. Raises TimeoutError if none is."""
    left = time_left()
    if left <= 0:
        raise TimeoutError("no time is left")
    return min(seconds, left)


def _tail(crc64nvme: str, length: int) -> bytes:
    """What follows the bytes: the end of their chunk, the last chunk, the trailer."""
    return f"{'\r\n' if length else ''}0\r\n{_CHECKSUM}:{crc64nvme}\r\n\r\n".encode()


def _error_code(status: int, document: bytes) -> str:
    try:  # a document of S3's, and expat bounds what its entities may grow to
        code = ElementTree.fromstring(document).findtext("Code") if document else None  # noqa: S314
    except ElementTree.ParseError:
        code = None
    return code or str(status)
