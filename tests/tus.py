"""tus 1.0.0 as it is on the wire: one request a call, nothing hidden."""

import base64
import hashlib
import http.client
import secrets
from dataclasses import dataclass, field
from urllib.parse import urljoin, urlsplit

import requests
from awscrt import checksums

TIMEOUT = 30.0
VERSION = {"Tus-Resumable": "1.0.0"}
BYTES = {"Content-Type": "application/offset+octet-stream"}


def metadata(**values: str) -> str:
    """The Upload-Metadata header."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


def checksum(algorithm: str, data: bytes) -> dict[str, str]:
    """The Upload-Checksum header."""
    digest = hashlib.new(algorithm, data, usedforsecurity=False).digest()
    return {"Upload-Checksum": f"{algorithm} {base64.b64encode(digest).decode()}"}


def crc64nvme(data: bytes) -> str:
    """As S3 writes it."""
    return base64.b64encode(checksums.crc64nvme(data).to_bytes(8)).decode()


def an_id() -> str:
    return secrets.token_hex(12)


@dataclass
class Tus:
    """A client of the import API at `url`; `headers` go with each request."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)

    def call(
        self, method: str, url: str | None = None, data: bytes | None = None, /, **headers: str
    ) -> requests.Response:
        """One request, with the version of tus unless it is given."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in (VERSION | self.headers | named).items() if value}
        return requests.request(
            method, url or self.url, data=data, headers=sent, timeout=TIMEOUT, allow_redirects=False
        )

    def create(self, length: int, **values: str) -> str:
        """The URL of a new upload."""
        answer = self.call("POST", Upload_Length=str(length), Upload_Metadata=metadata(**values))
        assert answer.status_code == 201, answer.text
        return urljoin(self.url, answer.headers["location"])

    def offset(self, upload: str) -> int:
        answer = self.call("HEAD", upload)
        assert answer.status_code == 200
        return int(answer.headers["upload-offset"])

    def patch(self, upload: str, offset: int, data: bytes, **headers: str) -> requests.Response:
        return self.call("PATCH", upload, data, **{**BYTES, "Upload-Offset": str(offset), **headers})

    def send(self, upload: str, offset: int, data: bytes, slice_size: int = 8 << 20) -> None:
        """All bytes from offset on, slice by slice."""
        for at in range(offset, len(data), slice_size):
            answer = self.patch(upload, at, data[at : at + slice_size])
            assert answer.status_code == 204, answer.text
            assert int(answer.headers["upload-offset"]) == min(at + slice_size, len(data))

    def begin_patch(self, upload: str, offset: int, length: int, data: bytes) -> http.client.HTTPConnection:
        """A PATCH of `length` bytes of which `data` is sent; the rest may follow, or the connection be closed."""
        parts = urlsplit(upload)
        connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
        connection.putrequest("PATCH", parts.path)
        sent = VERSION | self.headers | BYTES
        for name, value in (sent | {"Upload-Offset": str(offset), "Content-Length": str(length)}).items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(data)
        return connection
