"""What a run of a client cost, and what several runs say together."""

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LIMIT_SECONDS = 180


@dataclass(frozen=True)
class Cost:
    """Of one run. `rss` is the peak (bytes) of its largest process; CPU includes all its processes."""

    seconds: float
    cpu: float
    rss: int
    said: str = ""
    """The client's last line."""


# A process starts with the peak memory of the one it was forked from, so a small one starts the clients.
_LAUNCHER = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
code = subprocess.run(sys.argv[2:], stdin=subprocess.DEVNULL, timeout=float(sys.argv[1])).returncode
seconds = time.perf_counter() - started
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print()
print(json.dumps([code, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024]))
"""


def run(command: Sequence[str], environment: Mapping[str, str]) -> Cost:
    """Runs a client to its end; whole processes are counted, their start included. Raises RuntimeError."""
    ended = subprocess.run(
        [sys.executable, "-S", "-c", _LAUNCHER, str(LIMIT_SECONDS), *command],
        env=dict(environment),
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS + 10,
        check=False,
    )
    told = ended.stdout.splitlines()
    if ended.returncode != 0 or not told or json.loads(told[-1])[0] != 0:
        raise RuntimeError(f"{' '.join(command)} failed: {ended.stdout[-500:]}{ended.stderr[-1000:]}")
    _, seconds, cpu, rss = json.loads(told[-1])
    said = [line for line in told[:-1] if line]
    return Cost(seconds, cpu, rss, said[-1] if said else "")


def own_cpu() -> float:
    """CPU seconds of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def summary(costs: Sequence[Cost], size: int) -> dict[str, float]:
    """Median, lowest and highest of MB/s, CPU seconds per GB and peak MB (all decimal)."""
    figures: dict[str, float] = {}
    for name, values in {
        "mbps": [size / 1e6 / cost.seconds for cost in costs],
        "cpu": [cost.cpu / (size / 1e9) for cost in costs],
        "rss": [cost.rss / 1e6 for cost in costs],
    }.items():
        figures[name] = statistics.median(values)
        figures[f"{name}Low"], figures[f"{name}High"] = min(values), max(values)
    return figures
