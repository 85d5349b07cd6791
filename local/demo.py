"""The demo: backs up two exports on real services, changes the site, restores it, and compares every byte.

The objects in S3 are compared with the exports, and in the end the exports with what they were before.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import requests
from awscrt import checksums
from rich.console import Console
from rich.table import Table

from . import background
from .follow import NotDone, call, check_done, follow
from .services.s3 import s3_client
from .settings import Settings, free_ports

SIZES = {"site": 48, "db": 24}  # MiB
_RATES = {"site": 6, "db": 3}  # MiB/s of each part: slow enough to watch
_IMPORT_RATES = {"site": 12, "db": 6}  # MiB/s
_CHANGED = {"site": 6, "db": 3}  # MiB, of other bytes
_PART_SIZE_MIB = 5
_PARTS_IN_FLIGHT = 2
_LIMIT_SECONDS = 180.0  # of the backup, and of the restore
_MIB = 1024 * 1024
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Digest:
    """Size in bytes, CRC64NVME as S3 writes it, and SHA-256 in hex."""

    size: int
    crc64nvme: str
    sha256: str

    @property
    def mib(self) -> str:
        return f"{self.size / _MIB:g} MiB"

    @property
    def short(self) -> str:
        return f"{self.sha256[:12]}…"


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
                "Starting Kafka, MongoDB's protocol, S3, two providers and the functions ..."
            ):
                background.start(settings, env, throw_away=True)
            console.print(f"Everything is up, the API at {settings.api_address}")
            succeeded = _go_all_the_way(settings, console)
            failed = not succeeded
        except (NotDone, background.NotStarted) as error:
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


def _go_all_the_way(settings: Settings, console: Console) -> bool:
    """Whether all bytes were stored, and all came back. Raises NotDone."""
    job = _back_up(settings, console)
    exports = {name: _export(settings, name, job) for name in SIZES}
    if not _compare(settings, job, exports, console):
        return False
    _change(settings, job, console)
    changed = {name: _export(settings, name, job) for name in SIZES}
    _restore(settings, job, console)
    return _compare_again(settings, job, exports, changed, console)


def _back_up(settings: Settings, console: Console) -> dict[str, Any]:
    """Create the backup over HTTP and follow it to its end. Raises NotDone."""
    user_id, site_id = secrets.token_hex(12), secrets.token_hex(12)
    url = f"{settings.api_address}/backup"
    for name, rate in _RATES.items():
        slow = {"faults": {"drip": {"bytesPerSecond": rate * _MIB}}}
        _control(settings, "PUT", name, site_id, slow)
    rates = " and ".join(f"{name} at {rate}" for name, rate in _RATES.items())
    console.print(f"The exports answer slowly, so that there is something to watch: {rates} MiB/s a part")
    console.print(f"POST {url} for the site {site_id}")
    started = time.monotonic()
    job = call("POST", url, 202, {"userId": user_id, "siteId": site_id})
    console.print(f"202 Accepted, the job is {job['jobId']}")
    job = follow(f"{url}/{job['jobId']}", job, _LIMIT_SECONDS, console)
    check_done(job)
    console.print(f"The job is done after {time.monotonic() - started:.1f} s")
    for name in _RATES:
        _control(settings, "DELETE", name, site_id)  # at full speed from here on
    return job


def _change(settings: Settings, job: Mapping[str, Any], console: Console) -> None:
    """Both sites get other content, and import slowly."""
    for name, size in _CHANGED.items():
        slow = {"drip": {"bytesPerSecond": _IMPORT_RATES[name] * _MIB}}
        other = {"size": size * _MIB, "revision": 2, "imports": slow}
        _control(settings, "PUT", name, job["siteId"], other)
    sizes = " and ".join(f"{name} has {size}" for name, size in _CHANGED.items())
    console.print(f"Then the site changes: {sizes} MiB now, and all of it other bytes")


def _restore(settings: Settings, job: Mapping[str, Any], console: Console) -> None:
    """Have the backup restored over HTTP, and follow that to its end. Raises NotDone."""
    url = f"{settings.api_address}/restores"
    console.print(f"POST {url} for the job {job['jobId']}")
    asked = {name: job[name] for name in ("userId", "siteId", "jobId")}
    started = time.monotonic()
    restore = call("POST", url, 202, {**asked, "providers": "all"})
    console.print(f"202 Accepted, the restore is {restore['restoreId']}")
    restore = follow(f"{url}/{restore['restoreId']}", restore, _LIMIT_SECONDS, console)
    check_done(restore)
    console.print(
        f"The restore is done after {time.monotonic() - started:.1f} s, its safety backup included:"
    )
    console.print(f"what the site had become is in backup {restore['safetyJobId']}")


def _control(settings: Settings, method: str, provider: str, site_id: str, body: Any = None) -> None:
    """Set or reset how the mock provider answers for this site."""
    address = f"{settings.providers_address}/control/{provider}/{site_id}"
    requests.request(method, address, json=body, timeout=30).raise_for_status()


def _compare(
    settings: Settings, job: Mapping[str, Any], exports: Mapping[str, Digest], console: Console
) -> bool:
    """Read every object whole, and show whether it has the bytes of its export."""
    table = _table("provider", "size", "parts", "CRC64 in S3", "export SHA-256", "object SHA-256", "equal")
    s3 = s3_client(f"http://127.0.0.1:{settings.ports['S3']}")
    all_equal = set(job["tasks"]) == set(SIZES)
    for name, task in sorted(job["tasks"].items()):
        place = {"Bucket": task["object"]["bucket"], "Key": task["object"]["key"]}
        exported = exports[name]
        with console.status(f"Comparing {name} ..."):
            head = s3.head_object(**place, ChecksumMode="ENABLED")
            stored = _digest(s3.get_object(**place)["Body"].iter_chunks(_MIB))
        checksum = head.get("ChecksumCRC64NVME", "none")
        equal = exported == stored and checksum == exported.crc64nvme and exported.size == SIZES[name] * _MIB
        all_equal = all_equal and equal
        parts = str(task["progress"]["partsTotal"])
        table.add_row(name, stored.mib, parts, checksum, exported.short, stored.short, _yes(equal))
    console.print(table)
    console.print("Every byte is the same." if all_equal else "[red]There are differences.[/red]")
    return all_equal


def _compare_again(
    settings: Settings,
    job: Mapping[str, Any],
    exports: Mapping[str, Digest],
    changed: Mapping[str, Digest],
    console: Console,
) -> bool:
    """Read every export once more, and show whether it is what it was before the site changed."""
    table = _table("provider", "size", "first SHA-256", "changed to", "came back", "equal")
    all_equal = True
    for name, first in sorted(exports.items()):
        with console.status(f"Comparing {name} ..."):
            back = _export(settings, name, job)
        equal = back == first != changed[name]
        all_equal = all_equal and equal
        table.add_row(name, back.mib, first.short, changed[name].short, back.short, _yes(equal))
    console.print(table)
    console.print("Every byte is back." if all_equal else "[red]What came back differs.[/red]")
    return all_equal


def _table(*titles: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, no_wrap=True)
    return table


def _yes(equal: bool) -> str:
    return "yes" if equal else "[red]NO[/red]"


def _export(settings: Settings, provider: str, job: Mapping[str, Any]) -> Digest:
    """Of what the provider's export gives now."""
    query = {"userId": job["userId"], "siteId": job["siteId"]}
    address = f"{settings.providers_address}/{provider}/export"
    with requests.get(address, params=query, stream=True, timeout=30) as answer:
        answer.raise_for_status()
        return _digest(answer.iter_content(_MIB))


def _digest(chunks: Iterable[bytes]) -> Digest:
    size, crc, sha256 = 0, 0, hashlib.sha256()
    for chunk in chunks:
        size += len(chunk)
        crc = checksums.crc64nvme(chunk, crc)
        sha256.update(chunk)
    return Digest(size, base64.b64encode(crc.to_bytes(8, "big")).decode(), sha256.hexdigest())
