"""The clients that are compared: how each is told to move one export into one S3 object.

All get four streams, 16 MiB parts and otherwise their own defaults.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.deployed import Deployed
from benchmarks.measure import Cost, run
from benchmarks.servers import ROOT
from local.aws_account import ACCESS_KEY, REGION, SECRET_KEY
from local.services.s3 import BUCKET

PEERS = ROOT / ".venv-bench/bin"
PART_MIB, AT_ONCE = 16, 4


@dataclass(frozen=True)
class Job:
    """One export to move."""

    export: str
    """URL."""
    s3: str
    """Endpoint."""
    key: str
    size: int
    folder: Path
    certificate: Path | None = None
    importing: str = ""
    """URL of the import API, if an object is given back."""


type Client = Callable[[Job], Cost]


def environment(job: Job) -> dict[str, str]:
    """What any client needs, and nothing of the caller's own configuration."""
    config = job.folder / "aws.config"
    config.write_text(
        f"[default]\ns3 =\n  multipart_chunksize = {PART_MIB}MB\n  multipart_threshold = {PART_MIB}MB\n"
        f"  max_concurrent_requests = {AT_ONCE}\n"
    )
    settings = {
        "PATH": f"{PEERS}:{os.environ['PATH']}",
        "HOME": str(job.folder),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": str(config),
        "AWS_EC2_METADATA_DISABLED": "true",
        "RCLONE_CONFIG": "/dev/null",
        "RCLONE_CONFIG_B_TYPE": "s3",
        "RCLONE_CONFIG_B_PROVIDER": "Other",
        "RCLONE_CONFIG_B_ENDPOINT": job.s3,
        "RCLONE_CONFIG_B_ENV_AUTH": "true",
        "RCLONE_CONFIG_B_REGION": REGION,
        "RCLONE_S3_CHUNK_SIZE": f"{PART_MIB}M",
        "RCLONE_S3_UPLOAD_CONCURRENCY": str(AT_ONCE),
        "RCLONE_S3_NO_CHECK_BUCKET": "true",
        "RCLONE_MULTI_THREAD_STREAMS": str(AT_ONCE),
        "RCLONE_MULTI_THREAD_CUTOFF": f"{PART_MIB}M",
    }
    if job.certificate:
        settings |= {
            "AWS_CA_BUNDLE": str(job.certificate),
            "REQUESTS_CA_BUNDLE": str(job.certificate),
            "CURL_CA_BUNDLE": str(job.certificate),
            "RCLONE_CA_CERT": str(job.certificate),
        }
    return settings


def _shell(line: str) -> Client:
    """Fails if any command of the line does."""
    bash = ["bash", "-o", "pipefail", "-c"]
    return lambda job: run([*bash, line.format(job=job, bucket=BUCKET)], environment(job))


def engine(deployed: Deployed, part_mib: int = PART_MIB, at_once: int = AT_ONCE) -> Client:
    """The bare engine: what it takes once its process has started."""

    def client(job: Job) -> Cost:
        arguments = [job.export, job.s3, job.key, str(part_mib), str(at_once)]
        return _started(_python(deployed, "engine", arguments, job))

    return client


def engine_command(deployed: Deployed) -> Client:
    """The bare engine as a command, the start of Python and all imports included."""
    return lambda job: _python(
        deployed, "engine", [job.export, job.s3, job.key, str(PART_MIB), str(AT_ONCE)], job
    )


def floor(deployed: Deployed) -> Client:
    """One loop with nothing around it, to hold the engine against."""
    return lambda job: _started(_python(deployed, "floor", [job.export, job.s3], job))


def _python(deployed: Deployed, module: str, arguments: Sequence[str], job: Job) -> Cost:
    command = [*deployed.python, "-m", f"benchmarks.{module}", *arguments]
    return run(command, environment(job) | {"PYTHONPATH": deployed.path})


def _started(cost: Cost) -> Cost:
    return replace(cost, **json.loads(cost.said))


ENGINE = "Site Backup, bare engine"
ENGINE_COMMAND = "Site Backup, bare engine and its process's start"
FUNCTION = "Site Backup, upload_part function"
FLOOR = "Plain loop: recv, CRC64NVME, send, one stream"

RESTORE = "Site Backup, restore_provider function"
RESTORE_CHECKED = "Site Backup, restore_provider function, with a SHA-1 of each slice"

PIPED: Mapping[str, Client] = {
    "rclone copyurl": _shell("rclone copyurl {job.export} b:{bucket}/{job.key}"),
    "rclone copyto, ranged": _shell(
        "url={job.export}; rclone copyto \":http,url='${{url%/*}}/':${{url##*/}}\" b:{bucket}/{job.key}"
    ),
    "curl into s5cmd pipe": _shell(
        f"curl -sSf {{job.export}} | s5cmd --endpoint-url {{job.s3}} pipe -c {AT_ONCE} -p {PART_MIB}"
        " s3://{bucket}/{job.key}"
    ),
    "curl into aws s3 cp": _shell(
        "curl -sSf {job.export} | aws --endpoint-url {job.s3} s3 cp --quiet --expected-size {job.size} -"
        " s3://{bucket}/{job.key}"
    ),
}


GIVING_BACK: Mapping[str, Client] = {
    "rclone copyurl onto WebDAV": _shell(
        "rclone copyurl '{job.export}' \":webdav,url='{job.importing}':site.zip\""
    ),
    "s5cmd cat into curl -T": _shell(
        f"s5cmd --endpoint-url {{job.s3}} cat -c {AT_ONCE} -p {PART_MIB} s3://{{bucket}}/{{job.key}}"
        " | curl -sSf -T - {job.importing}"
    ),
    "aws s3 cp into curl -T": _shell(
        "aws --endpoint-url {job.s3} s3 cp --quiet s3://{bucket}/{job.key} - | curl -sSf -T - {job.importing}"
    ),
}
"""From S3 into a `PUT`, which is not resumed: none of them speaks tus."""


def peers(which: Mapping[str, Client] = PIPED) -> Mapping[str, Client]:
    """Those that can run here. Raises RuntimeError if `make bench` did not install them."""
    missing = [name for name in ("rclone", "s5cmd", "aws") if not (PEERS / name).exists()]
    if missing:
        raise RuntimeError(f"{', '.join(missing)} not in {PEERS}: run `make bench`")
    if shutil.which("curl"):
        return which
    return {name: client for name, client in which.items() if "curl" not in name}
