"""The demo: backs up two exports on real services and compares what S3 holds with what was exported."""

from __future__ import annotations

import base64
import hashlib
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import requests
from awscrt import checksums
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import background
from .services.s3 import s3_client
from .settings import Settings, free_ports

SIZES = {"site": 48, "db": 24}  # MiB
_RATES = {"site": 6, "db": 3}  # MiB/s of each part: slow enough to watch
_PART_SIZE_MIB = 5
_PARTS_IN_FLIGHT = 2
_LOOK_SECONDS = 0.2
_JOB_SECONDS = 180.0
_CHUNK = 1024 * 1024
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_FINAL = ("done", "failed", "cancelled")


class DemoFailed(Exception):
    """What went wrong, in a sentence."""


@dataclass(frozen=True)
class Digest:
    """Size in bytes, CRC64NVME as S3 writes it, and SHA-256 in hex."""

    size: int
    crc64nvme: str
    sha256: str


def main() -> int:
    """Run the demo on free ports and in a folder of its own; the exit code is 1 if anything differs.

    Nothing is left of it, unless it fails: then its folder stays. Raises KeyboardInterrupt, also for SIGTERM and
    SIGHUP, once all is stopped and removed.
    """
    for number in _INTERRUPTS:
        signal.signal(number, _interrupt)
    console = Console()
    folder = Path(tempfile.gettempdir()) / f"site-backup-demo-{secrets.token_hex(4)}"
    env = background.environment(
        **free_ports(),
        LOCAL_DIR=str(folder),
        SERVICES="embedded",
        LAMBDA="local",
        PROVIDERS="",
        PARAM_ProvidersSource="",
        MOCK_PROVIDERS_DEFAULT_SIZE=",".join(f"{name}={size}MiB" for name, size in SIZES.items()),
        PARAM_PartSizeMib=str(_PART_SIZE_MIB),
        PARAM_PartsInFlight=str(_PARTS_IN_FLIGHT),
    )
    settings = Settings.from_env(env)
    succeeded = failed = False
    try:
        try:
            folder.mkdir(mode=0o700)
            with console.status(
                "Starting Kafka, MongoDB's protocol, S3, two export APIs and the functions ..."
            ):
                background.start(settings, env, throw_away=True)
            console.print(f"Everything is up, the API at {settings.api_address}")
            job = _back_up(settings, console)
            succeeded = _compare(settings, job, console)
            failed = not succeeded
        except (DemoFailed, background.NotStarted) as error:
            failed = True
            console.print(f"The demo failed. {error}", style="red", markup=False)
        except requests.RequestException as error:
            failed = True
            console.print(f"The demo failed, a server did not answer: {error}", style="red", markup=False)
        finally:
            _ignore_interrupts()
    finally:  # also after an interrupt in the line above
        for child in psutil.Process().children():
            background.end(child.pid)
        if failed:
            console.print(f"Data and logs are kept in {folder}", markup=False)
        elif folder.exists():
            shutil.rmtree(folder)
            console.print("Everything is stopped, and nothing of it is left.")
    return 0 if succeeded else 1


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    _ignore_interrupts()  # a second one must not break off the end
    raise KeyboardInterrupt


def _ignore_interrupts() -> None:
    for number in _INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)


def _back_up(settings: Settings, console: Console) -> dict[str, Any]:
    """Create the backup over HTTP and follow it to its end. Raises DemoFailed."""
    user_id, site_id = secrets.token_hex(12), secrets.token_hex(12)
    url = f"{settings.api_address}/backup"
    for name, rate in _RATES.items():
        slow = {"faults": {"drip": {"bytesPerSecond": rate * 1024 * 1024}}}
        _control(settings, "PUT", name, site_id, slow)
    rates = " and ".join(f"{name} at {rate}" for name, rate in _RATES.items())
    console.print(f"The exports answer slowly, so that there is something to watch: {rates} MiB/s a part")
    console.print(f"POST {url} for the site {site_id}")
    started = time.monotonic()
    answer = requests.post(url, json={"userId": user_id, "siteId": site_id}, timeout=30)
    if answer.status_code != 202:
        raise DemoFailed(f"POST answered {answer.status_code}: {answer.text}")
    job: dict[str, Any] = answer.json()
    console.print(f"202 Accepted, the job is {job['jobId']}")
    columns = (TextColumn("{task.description:>6}"), BarColumn(40), DownloadColumn(binary_units=True))
    with Progress(
        *columns, TextColumn("{task.fields[status]}"), TimeElapsedColumn(), console=console
    ) as bars:
        rows = {name: bars.add_task(name, total=None, status="pending") for name in sorted(job["tasks"])}
        while True:
            for name, task in job["tasks"].items():
                progress = task["progress"]
                parts = f"{progress['partsDone']} of {progress.get('partsTotal', '?')} parts"
                bars.update(
                    rows[name],
                    completed=progress["bytesDone"],
                    total=progress.get("bytesTotal"),
                    status=f"{task['status']}, {parts}",
                )
            if job["status"] in _FINAL:
                break
            if time.monotonic() - started > _JOB_SECONDS:
                raise DemoFailed(f"The job is still {job['status']} after {_JOB_SECONDS:.0f} s.")
            time.sleep(_LOOK_SECONDS)
            answer = requests.get(f"{url}/{job['jobId']}", timeout=40)
            if answer.status_code != 200:
                raise DemoFailed(f"GET answered {answer.status_code}: {answer.text}")
            job = answer.json()
    if job["status"] != "done":
        reason = job.get("reason") or {}
        raise DemoFailed(f"The job ended as {job['status']}: {reason.get('code')}: {reason.get('message')}")
    console.print(f"The job is done after {time.monotonic() - started:.1f} s")
    for name in _RATES:
        _control(settings, "DELETE", name, site_id)  # at full speed from here on
    return job


def _control(settings: Settings, method: str, provider: str, site_id: str, body: Any = None) -> None:
    """Set or reset how the mock provider answers for this site."""
    address = f"{settings.providers_address}/control/{provider}/{site_id}"
    requests.request(method, address, json=body, timeout=30).raise_for_status()


def _compare(settings: Settings, job: dict[str, Any], console: Console) -> bool:
    """Read every export and every object whole, and show whether they are the same bytes."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("provider", "size", "parts", "CRC64 in S3", "export SHA-256", "object SHA-256", "equal"):
        table.add_column(title, no_wrap=True)
    s3 = s3_client(f"http://127.0.0.1:{settings.ports['S3']}")
    all_equal = set(job["tasks"]) == set(SIZES)
    for name, task in sorted(job["tasks"].items()):
        place = {"Bucket": task["object"]["bucket"], "Key": task["object"]["key"]}
        with console.status(f"Comparing {name} ..."):
            exported = _export(settings, name, job)
            head = s3.head_object(**place, ChecksumMode="ENABLED")
            stored = _digest(s3.get_object(**place)["Body"].iter_chunks(_CHUNK))
        checksum = head.get("ChecksumCRC64NVME", "none")
        equal = (
            exported == stored and checksum == exported.crc64nvme and exported.size == SIZES[name] * _CHUNK
        )
        all_equal = all_equal and equal
        table.add_row(
            name,
            f"{stored.size / _CHUNK:g} MiB",
            str(task["progress"]["partsTotal"]),
            checksum,
            f"{exported.sha256[:12]}…",
            f"{stored.sha256[:12]}…",
            "yes" if equal else "[red]NO[/red]",
        )
    console.print(table)
    console.print("Every byte is the same." if all_equal else "[red]There are differences.[/red]")
    return all_equal


def _export(settings: Settings, provider: str, job: dict[str, Any]) -> Digest:
    query = {"userId": job["userId"], "siteId": job["siteId"]}
    address = f"{settings.providers_address}/{provider}/export"
    with requests.get(address, params=query, stream=True, timeout=30) as answer:
        answer.raise_for_status()
        return _digest(answer.iter_content(_CHUNK))


def _digest(chunks: Iterable[bytes]) -> Digest:
    size, crc, sha256 = 0, 0, hashlib.sha256()
    for chunk in chunks:
        size += len(chunk)
        crc = checksums.crc64nvme(chunk, crc)
        sha256.update(chunk)
    return Digest(size, base64.b64encode(crc.to_bytes(8, "big")).decode(), sha256.hexdigest())
