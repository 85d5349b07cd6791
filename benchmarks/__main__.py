"""`python -m benchmarks`: measures, writes benchmarks/figures.json and docs/benchmarks.md, and prints the tables."""

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import clean_up, control_plane, drill, isolation, report, restore, scale, transfer, whole_run
from benchmarks.deployed import deploy
from benchmarks.function import services
from benchmarks.machine import describe, load
from benchmarks.servers import ROOT, Tls

FIGURES = ROOT / "benchmarks/figures.json"


def main() -> None:
    """Runs the sections asked for; the figures of the others stay as they were."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of each comparison")
    parser.add_argument("--mib", type=int, default=1024, help="size of the export that is compared")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION",
                        help=", ".join(SECTIONS))  # fmt: skip
    arguments = parser.parse_args()
    figures: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    started = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {line}", flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that everything started is ended, too
    place = Path("/dev/shm") if shutil.disk_usage("/dev/shm").free > 8 << 30 else None  # noqa: S108 - memory, no file
    folder = Path(tempfile.mkdtemp(prefix="site-backup-bench-", dir=place))
    try:
        deployed = deploy(folder)
        say(f"layer made: {deployed.size}")
        with services(folder, deployed) as function:
            bench = transfer.Bench(folder, arguments.rounds, Tls(folder), deployed, function, say)
            for name in arguments.only:
                load_before = load()
                figures[name] = SECTIONS[name](bench, arguments.mib)
                figures["machine"] = describe(place is not None, deployed.size)
                figures.setdefault("commands", {})[name] = " ".join(["python -m benchmarks", *sys.argv[1:]])
                figures.setdefault("loads", {})[name] = load_before
                FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    report.write(figures)
    scale.write(figures)


type Section = Callable[[transfer.Bench, int], Any]

SECTIONS: dict[str, Section] = {
    "plain": transfer.plain,
    "https": lambda bench, mib: transfer.https(bench, mib // 2),
    "slow": lambda bench, mib: transfer.slow(bench, mib // 4),
    "sweep": lambda bench, mib: transfer.sweep(bench, mib // 4),
    "memory": lambda bench, mib: transfer.memory_curve(bench, mib // 2),
    "restore": restore.measure,
    "drill": drill.measure,
    "control": control_plane.measure,
    "cleanUp": clean_up.measure,
    "whole": whole_run.measure,
    "isolation": isolation.measure,
}

if __name__ == "__main__":
    main()
