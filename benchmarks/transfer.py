"""Ours beside the peers: the same export, the same S3 server, rounds interleaved."""

import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import clients
from benchmarks.clients import Client, Job
from benchmarks.deployed import Deployed
from benchmarks.function import UploadPartFunction
from benchmarks.measure import Cost, summary
from benchmarks.servers import Tls, module, seaweed

MIB = 1024 * 1024
LATENCY_SECONDS, BYTES_PER_SECOND = 0.05, 20_000_000
PART_MIBS, AT_ONCES = (5, 8, 16, 32, 64), (1, 2, 4, 8)
MEMORIES = (512, 768, 1024, 1769, 3008)
MB_PER_CPU = 1769  # of Lambda's memory setting: "Configure Lambda function memory" in its developer guide

type Endpoint = Callable[[], AbstractContextManager[str]]


@dataclass
class Bench:
    """Where and how the transfers are measured; `say` tells the progress."""

    folder: Path
    rounds: int
    tls: Tls
    deployed: Deployed
    function: UploadPartFunction
    say: Callable[[str], None]
    blobs: dict[int, Path] = field(default_factory=dict)

    def blob(self, mib: int) -> Path:
        """A file of random bytes; it does not compress."""
        if mib not in self.blobs:
            path = self.folder / f"export-{mib}"
            with path.open("wb") as file:
                for _ in range(mib):
                    file.write(os.urandom(MIB))
            self.blobs[mib] = path
        return self.blobs[mib]

    def all_clients(self) -> Mapping[str, Client]:
        return {
            clients.FUNCTION: self.function,
            clients.ENGINE: clients.engine(self.deployed),
            clients.ENGINE_COMMAND: clients.engine_command(self.deployed),
            **clients.peers(),
        }

    def all_and_floor(self) -> Mapping[str, Client]:
        return {**self.all_clients(), clients.FLOOR: clients.floor(self.deployed)}

    def seaweed(self) -> AbstractContextManager[str]:
        return seaweed(self.folder / "s3")

    def secure_seaweed(self) -> AbstractContextManager[str]:
        return seaweed(self.folder / "s3", self.tls)

    @contextmanager
    def null(self) -> Iterator[str]:
        with module("sink", "PORT") as port:
            yield f"http://127.0.0.1:{port}"

    @contextmanager
    def secure_null(self) -> Iterator[str]:
        with module("sink", "PORT", self.tls.certificate, self.tls.key) as port:
            yield f"https://127.0.0.1:{port}"

    def compare(
        self, title: str, export: str, mib: int, endpoint: Endpoint, which: Mapping[str, Client], rounds: int
    ) -> dict[str, Any]:
        """Each client once a round, in turn first, each against a server of its own. Figures by client."""
        costs: dict[str, list[Cost]] = {name: [] for name in which}
        for number in range(rounds):
            names = list(which)[number % len(which) :] + list(which)[: number % len(which)]
            for name in names:
                cost = self.once(export, mib, endpoint, which[name])
                costs[name].append(cost)
                self.say(f"{title}, round {number + 1}: {name} {mib * MIB / 1e6 / cost.seconds:.0f} MB/s")
        return {
            "mib": mib,
            "rounds": rounds,
            "clients": {name: summary(found, mib * MIB) for name, found in costs.items()},
        }

    def once(self, export: str, mib: int, endpoint: Endpoint, client: Client) -> Cost:
        user, site, job = (uuid.uuid4().hex[:24] for _ in range(3))
        secure = export.startswith("https")
        with endpoint() as s3:
            return client(
                Job(
                    export=export,
                    s3=s3,
                    key=f"{user}/{site}/{job}/site.zip",
                    size=mib * MIB,
                    folder=self.folder,
                    certificate=self.tls.certificate if secure else None,
                )
            )


def plain(bench: Bench, mib: int) -> dict[str, Any]:
    """Over http: half of it onto SeaweedFS, and all onto a server that takes everything at no cost."""
    found = {}
    for name, size, endpoint, which in (
        ("seaweedfs", mib // 2, bench.seaweed, bench.all_clients()),
        ("null", mib, bench.null, bench.all_and_floor()),
    ):
        with module("origin", bench.blob(size), "PORT") as port:
            export = f"http://127.0.0.1:{port}/export.zip"
            found[name] = bench.compare(name, export, size, endpoint, which, bench.rounds)
    return found


def https(bench: Bench, mib: int) -> dict[str, Any]:
    """The same with TLS on both sides."""
    tls, rounds = bench.tls, max(1, bench.rounds - 1)
    with module("origin", bench.blob(mib), "PORT", tls.certificate, tls.key) as port:
        export = f"https://127.0.0.1:{port}/export.zip"
        return {
            "seaweedfs": bench.compare(
                "https", export, mib, bench.secure_seaweed, bench.all_clients(), rounds
            ),
            "null": bench.compare(
                "https, null", export, mib, bench.secure_null, bench.all_and_floor(), rounds
            ),
        }


def slow(bench: Bench, mib: int) -> dict[str, Any]:
    """An origin 50 ms away that gives each connection 20 MB/s."""
    with (
        module("origin", bench.blob(mib), "PORT") as origin,
        module("slow", origin, "PORT", LATENCY_SECONDS, BYTES_PER_SECOND) as port,
    ):
        export = f"http://127.0.0.1:{port}/export.zip"
        return bench.compare("slow origin", export, mib, bench.null, bench.all_clients(), 1)


def sweep(bench: Bench, mib: int) -> list[dict[str, Any]]:
    """The bare engine by part size and parts at once."""
    found = []
    with module("origin", bench.blob(mib), "PORT") as port:
        export = f"http://127.0.0.1:{port}/export.zip"
        for part_mib in PART_MIBS:
            for at_once in AT_ONCES:
                client = clients.engine(bench.deployed, part_mib, at_once)
                cost = bench.once(export, mib, bench.seaweed, client)
                figures = summary([cost], mib * MIB)
                found.append({"partMib": part_mib, "atOnce": at_once, **figures})
            bench.say(f"sweep: {part_mib} MiB parts done")
    return found


def memory_curve(bench: Bench, mib: int) -> list[dict[str, Any]]:
    """The function over https under the CPU that Lambda gives at each memory size; [] where that can't be had."""
    costs: dict[int, list[Cost]] = {memory: [] for memory in MEMORIES}
    tls = bench.tls
    with module("origin", bench.blob(mib), "PORT", tls.certificate, tls.key) as port:
        export = f"https://127.0.0.1:{port}/export.zip"
        for number in range(bench.rounds):
            for memory in MEMORIES:
                bench.function.quota = memory / MB_PER_CPU
                try:
                    costs[memory].append(bench.once(export, mib, bench.secure_null, bench.function))
                except OSError as error:
                    bench.say(f"no memory curve: {error}")
                    return []
                finally:
                    bench.function.quota = None
            bench.say(f"memory: round {number + 1} done")
    found = []
    for memory, those in costs.items():
        figures = summary(those, mib * MIB)
        found.append({"memory": memory, "gbSeconds": 1000 / figures["mbps"] * memory / 1024, **figures})
    return found
