"""A mock providers process of a test's own, and HTTP clients that hide nothing."""

import http.client
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from mock_providers.client import MockSite

ROOT = Path(__file__).parents[2]


@contextmanager
def serve(*arguments: str) -> Iterator[str]:
    """Runs the server on a free port, with these arguments; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mock_providers",
        "--port",
        str(port),
        "--default-size",
        "db=2MiB,tiny=7",
        *arguments,
    ]
    process = subprocess.Popen(command, cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: process.poll() is not None or is_healthy(url))
        assert process.poll() is None
        yield url
    finally:
        process.terminate()
        process.wait(10)


def is_healthy(url: str) -> bool:
    try:
        return requests.get(f"{url}/health", timeout=5).ok
    except requests.ConnectionError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def get(site: MockSite, span: str | None = None, **headers: str) -> requests.Response:
    """The export, or a range of it (`first-last`); no redirects, and no gzip unless asked for."""
    sent = {"Accept-Encoding": "identity"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    if span:
        sent["Range"] = f"bytes={span}"
    return requests.get(site.export_url, headers=sent, timeout=10, allow_redirects=False)


def get_raw(site: MockSite, timeout: float = 10, **headers: str) -> http.client.HTTPResponse:
    """The export's response, whose body is still to be read; without http.client's own Accept-Encoding."""
    connection = http.client.HTTPConnection(site.url.removeprefix("http://"), timeout=timeout)
    connection.putrequest("GET", site.export_url.removeprefix(site.url), skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    return connection.getresponse()


def read_until_broken(response: http.client.HTTPResponse) -> tuple[bytes, type[Exception] | None]:
    """The bytes that came, and how the body broke, if it did."""
    data = b""
    try:
        while chunk := response.read1(65536):
            data += chunk
    except (http.client.IncompleteRead, ConnectionResetError) as error:
        return data, type(error)
    # read1 tells of missing bytes in no other way
    return data, http.client.IncompleteRead if response.length else None
