"""`python -m benchmarks.scale`: what ten million sites a night need and cost, from benchmarks/figures.json.

Prices are AWS's list prices of us-east-1 for Linux on x86, in dollars, as they stood in 2026; change them here.
Writes docs/scale.md.
"""

import json
import math
import textwrap
from dataclasses import dataclass
from typing import Any

from benchmarks.report import DOCS, table
from benchmarks.servers import ROOT

SITES = 10_000_000
HOURS = 8
PROVIDERS = 2
MIB = 1024 * 1024
SITE_BYTES = 100 * MIB
"""Both exports of the middle site; most are smaller, so most exports fit one part."""
PART_BYTES = 16 * MIB
MEMORY_MB = 512
NETWORK_MBPS = 75.0
"""MB/s that one Lambda function is seen to move, each way; AWS states no figure."""
PROVIDER_SECONDS = 2.0
"""Until an export's first byte."""

ZIP_GETS = 2
"""Of the last 68 KiB of an object and of its first bytes; an object that is no longer needs the first only."""
GET_SECONDS = 0.1
"""Until a GET is answered: the lower end of what S3's performance guidelines state for small objects."""

LAMBDA_GB_SECOND = 0.0000166667
LAMBDA_REQUEST = 0.20 / 1e6
S3_PUT = 0.005 / 1e3
S3_GET = 0.0004 / 1e3
S3_GB_MONTH = 0.023
S3_GLACIER_IR_GB_MONTH = 0.004
S3_GLACIER_IR_GB_RETRIEVED = 0.03
NAT_GB = 0.045
ZONES_GB = 0.02
"""From one availability zone to another: 0.01 on each side."""
INTERNET_GB = 0.09
"""Out to the internet, the first 10 TB of a month."""
INVOCATIONS_PER_POLLER = 5
"""Of a Kafka mapping in provisioned mode (Lambda developer guide, "Apache Kafka event poller scaling modes")."""
POLLERS_PER_UNIT, UNIT_HOUR = 4, 0.185
"""An Event Poller Unit is what is paid: 20 MB/s, and a poller takes 5 MB/s of it."""
MONGO_OPERATIONS_PER_NODE = 20_000
"""A second: small writes by key on a large node; measure one's own."""
MONGO_CONNECTIONS = 30_000
"""Of a large DocumentDB instance or an Atlas M80 and larger."""
EXPIRIES_A_DAY = 1_000_000
CLEAN_UP_MB = 1024
"""Memory of `clean_up`."""
CLEAN_UP_PASSES = 5
"""That run at most at once: one begins each minute, and each may take 300 s."""
RESTORES_AT_ONCE = 8
"""Of one provider (`adapters/topics`)."""
DRILL_MB = 512
"""Memory of `drill_backup`."""
DRILL_DAYS, DRILL_DUE = 30, 0.8
"""`DrillDays`, and how much of them is over when a site is due again (`domain/site`)."""
DRILL_GETS = 3
"""Of an object besides its slices: its first bytes, its last ones, and its directory."""
VCPU_MB = 1769
"""The memory with which a Lambda function has a whole processor (Lambda developer guide, "Configure memory")."""
S3_LIST = 0.005 / 1e3
CATALOG_BACKUPS = 1_000_000
CATALOG_AT_ONCE = 16
"""Requests of one `rebuild_catalog` or `check_catalog`."""
REBUILD_SECONDS, CHECK_SECONDS = 0.0075, 0.0137
"""CPU of a backup of two providers, seen with 1,000 of them on SeaweedFS; both have a whole processor."""
VERSIONS_LISTED, SCHEDULES_SAVED = 1000, 1000
"""Of one page."""
QUOTA_COMMANDS = {
    "`POST /backup`": (2, 4),
    "the run of an export of one part": (5, 7),
    "`POST /restores`": (9, 10),
    "`PUT /sites/{siteId}/schedule`, a new one": (3, 4),
}
"""MongoDB commands without a limit, and with all of them, as `tests/integration/test_quotas.py` counts them."""
MONGO_POOL = 6
"""Connections an execution environment holds to the primary: one a part at once, two of the driver's monitor."""


@dataclass(frozen=True)
class Night:
    """The work of one night, and what follows from the figures."""

    figures: dict[str, Any]

    @property
    def seconds(self) -> int:
        return HOURS * 3600

    @property
    def bytes(self) -> float:
        return SITES * SITE_BYTES

    @property
    def parts(self) -> int:
        return SITES * PROVIDERS * math.ceil(SITE_BYTES / PROVIDERS / PART_BYTES)

    @property
    def jobs_per_second(self) -> float:
        return SITES / self.seconds

    @property
    def parts_per_second(self) -> float:
        return self.parts / self.seconds

    def of_job(self, kind: str) -> float:
        return float(sum(self.figures["control"]["jobs"][kind].values()))

    def of_part(self, kind: str) -> float:
        return float(sum(self.figures["control"]["parts"][-1][kind].values()))

    @property
    def mongo_per_second(self) -> float:
        return self.jobs_per_second * self.of_job("mongoPerJob") + self.parts_per_second * self.of_part(
            "mongoPerPart"
        )

    @property
    def mongo_writes_per_second(self) -> float:
        job = self.figures["control"]["jobs"]["mongoPerJob"]
        part = self.figures["control"]["parts"][-1]["mongoPerPart"]
        return self.jobs_per_second * _writes(job) + self.parts_per_second * _writes(part)

    @property
    def kafka_per_second(self) -> float:
        return self.jobs_per_second * self.of_job("kafkaPerJob") + self.parts_per_second * self.of_part(
            "kafkaPerPart"
        )

    @property
    def mbps(self) -> float:
        """Of one function: what its CPU allows at its memory size, up to what its network does."""
        curve = {found["memory"]: found["mbps"] for found in self.figures["memory"]}
        return min(NETWORK_MBPS, float(curve.get(MEMORY_MB, NETWORK_MBPS)))

    @property
    def moving_seconds(self) -> float:
        return self.bytes / 1e6 / self.mbps

    @property
    def concurrency(self) -> int:
        """Of upload_part and process_provider, at an even load."""
        moving = self.moving_seconds / self.seconds
        waiting = self.jobs_per_second * PROVIDERS * PROVIDER_SECONDS
        return math.ceil(moving + waiting)

    @property
    def lambda_seconds(self) -> float:
        return self.concurrency * self.seconds


def _writes(commands: dict[str, float]) -> float:
    return sum(count for name, count in commands.items() if name.split()[0] in ("insert", "update", "delete"))


def write(figures: dict[str, Any]) -> None:
    """docs/scale.md."""
    night = Night(figures)
    tb = night.bytes / 1e12
    transfer_seconds = night.moving_seconds
    puts = night.parts + SITES * (PROVIDERS * 2 + 1)
    pollers = math.ceil(night.concurrency / INVOCATIONS_PER_POLLER)
    units = math.ceil(pollers / POLLERS_PER_UNIT)
    costs = {
        "Lambda, moving bytes": transfer_seconds * MEMORY_MB / 1024 * LAMBDA_GB_SECOND,
        "Lambda, waiting for exports to start": (night.lambda_seconds - transfer_seconds)
        * MEMORY_MB / 1024 * LAMBDA_GB_SECOND,
        "Lambda, control plane": SITES * figures["control"]["jobs"]["cpuPerJob"] * LAMBDA_GB_SECOND,
        "Lambda, requests": (night.parts / 4 + SITES * 8) * LAMBDA_REQUEST,
        "S3, PUT requests": puts * S3_PUT,
        "S3, HEAD requests": SITES * PROVIDERS * 2 * S3_GET,
        "S3, GET requests that look into the zips": SITES * PROVIDERS * ZIP_GETS * S3_GET,
        "Lambda, waiting for these GET requests": SITES * PROVIDERS * ZIP_GETS * GET_SECONDS
        * MEMORY_MB / 1024 * LAMBDA_GB_SECOND,
        "Kafka pollers, provisioned mode": units * HOURS * UNIT_HOUR,
    }  # fmt: skip
    total = sum(costs.values())
    zips = sum(cost for name, cost in costs.items() if "GET" in name)
    nat = night.bytes / 1e9 * NAT_GB
    shards = math.ceil(night.mongo_per_second / MONGO_OPERATIONS_PER_NODE)
    connections = night.concurrency * MONGO_POOL
    lines = [
        "# Ten million sites a night",
        "",
        "Computed by `python -m benchmarks.scale` from `benchmarks/figures.json`; do not edit. The assumptions and",
        "prices are constants at the top of `benchmarks/scale.py`.",
        "",
        *table(
            ["assumed", ""],
            [
                ["sites", f"{SITES:,}"],
                ["hours of the night", HOURS],
                ["providers a site", PROVIDERS],
                ["bytes of a site, both exports", f"{SITE_BYTES / MIB:.0f} MiB"],
                ["part", f"{PART_BYTES / MIB:.0f} MiB"],
                ["memory of the moving functions", f"{MEMORY_MB} MB"],
                ["MB/s of one function", f"{night.mbps:.0f}"],
                ["seconds until an export starts", f"{PROVIDER_SECONDS:.0f}"],
            ],
        ),
        "",
        "## What it takes",
        "",
        *table(
            ["", "a night", "a second"],
            [
                ["bytes", f"{tb:,.0f} TB", f"{night.bytes / night.seconds / 1e9:.1f} GB"],
                ["jobs", f"{SITES:,}", f"{night.jobs_per_second:,.0f}"],
                ["parts", f"{night.parts:,}", f"{night.parts_per_second:,.0f}"],
                ["MongoDB commands", f"{night.mongo_per_second * night.seconds:,.0f}",
                 f"{night.mongo_per_second:,.0f}"],
                ["of them writes", f"{night.mongo_writes_per_second * night.seconds:,.0f}",
                 f"{night.mongo_writes_per_second:,.0f}"],
                ["Kafka records", f"{night.kafka_per_second * night.seconds:,.0f}",
                 f"{night.kafka_per_second:,.0f}"],
                ["S3 PUTs, creations, completions and manifests", f"{puts:,}", f"{puts / night.seconds:,.0f}"],
                ["export requests", f"{night.parts:,}", f"{night.parts_per_second:,.0f}"],
            ],
        ),
        "",
        *table(
            ["to be provided", ""],
            [
                ["concurrent executions, moving and waiting, at an even load", f"{night.concurrency:,}"],
                ["partitions of the two moving topics, one invocation each", f"{night.concurrency:,}"],
                [f"pollers, {INVOCATIONS_PER_POLLER} invocations each", f"{pollers:,}"],
                [f"MongoDB primaries, {MONGO_OPERATIONS_PER_NODE:,} commands/s each", shards],
                [f"MongoDB connections, {MONGO_POOL} an execution environment", f"{connections:,}"],
                [f"databases by connections, {MONGO_CONNECTIONS:,} each",
                 math.ceil(connections / MONGO_CONNECTIONS)],
            ],
        ),
        "",
        "## What it costs",
        "",
        *table(
            ["", "$ a night", "$ a TB"],
            [
                *([name, f"{cost:,.0f}", f"{cost / tb:.2f}"] for name, cost in costs.items()),
                ["**together**", f"{total:,.0f}", f"{total / tb:.2f}"],
                ["NAT gateway, were the providers reached through one", f"{nat:,.0f}", f"{nat / tb:.2f}"],
                ["a month of storage, S3 Standard", f"{night.bytes / 1e9 * S3_GB_MONTH:,.0f}",
                 f"{1000 * S3_GB_MONTH:.2f}"],
                ["a month of storage, Glacier Instant Retrieval",
                 f"{night.bytes / 1e9 * S3_GLACIER_IR_GB_MONTH:,.0f}", f"{1000 * S3_GLACIER_IR_GB_MONTH:.2f}"],
            ],
        ),
        "",
        "Brokers and database nodes are not in it: they are sized by the tables above and paid by the hour.",
        f"That every zip is looked into costs ${zips / SITES * 1e6:.2f} for a million backups, "
        f"{zips / total:.1%} of the whole.",
        "",
        *_restores(figures, total / tb),
        *_drills(figures),
        *_clean_up(figures),
        *_catalog(),
        *_quotas(),
        "## Where it breaks first, and what then",
        "",
        *_breaks(night, nat / total, puts * S3_PUT / total, pollers, connections, puts),
    ]  # fmt: skip
    (DOCS / "scale.md").write_text("\n".join(lines) + "\n")


def _restores(figures: dict[str, Any], backup: float) -> list[str]:
    """What a TB costs that goes back, in exports of the size assumed; `backup` is what a TB costs that comes."""
    restore = figures["restore"]
    curve = {found["memory"]: found["mbps"] for found in restore["memory"]}
    mbps = min(NETWORK_MBPS, float(curve.get(MEMORY_MB, NETWORK_MBPS)))
    export = SITE_BYTES / PROVIDERS
    tasks = 1e12 / export
    slice_bytes = restore["sliceBytes"]
    slices = tasks * math.ceil(export / slice_bytes)
    of_task, of_slice = restore["mongo"]["task"], restore["mongo"]["slice"]
    commands, writes = (
        tasks * count(of_task) + (slices - tasks) * count(of_slice)
        for count in (lambda those: sum(those.values()), _writes)
    )
    seconds = 1e12 / 1e6 / mbps
    costs = {
        "Lambda, moving bytes": seconds * MEMORY_MB / 1024 * LAMBDA_GB_SECOND,
        "Lambda, requests": tasks * LAMBDA_REQUEST,
        "S3, GET requests": slices * S3_GET,
    }
    week = 1000 * S3_GB_MONTH * 7 / 30
    return [
        "## Restores",
        "",
        f"One TB of exports of {export / MIB:.0f} MiB, each given back in slices of {slice_bytes // MIB} MiB.",
        "From what `python -m benchmarks --only restore` measured:",
        "",
        *table(
            ["", "a TB"],
            [
                ["tasks", f"{tasks:,.0f}"],
                [f"MB/s of one function of {MEMORY_MB} MB", f"{mbps:.0f}"],
                ["S3 GETs, one for each slice", f"{slices:,.0f}"],
                ["MongoDB commands of `restore_provider`", f"{commands:,.0f}"],
                ["of them writes", f"{writes:,.0f}"],
                ["Kafka records, one for each task", f"{tasks:,.0f}"],
                [f"minutes for one provider, {RESTORES_AT_ONCE} restores at once",
                 f"{seconds / RESTORES_AT_ONCE / 60:.0f}"],
            ],
        ),
        "",
        *table(
            ["", "$ a TB"],
            [
                *([name, f"{cost:.2f}"] for name, cost in costs.items()),
                ["**together**", f"{sum(costs.values()):.2f}"],
                ["a safety backup of as much", f"{backup:.2f}"],
                ["its storage for a week, S3 Standard", f"{week:.2f}"],
                ["retrieval, were the backup in Glacier Instant Retrieval",
                 f"{1000 * S3_GLACIER_IR_GB_RETRIEVED:.2f}"],
                ["a provider in another availability zone", f"{1000 * ZONES_GB:.2f}"],
                ["a provider behind a NAT gateway", f"{1000 * NAT_GB:.2f}"],
                ["a provider on the internet, besides the NAT gateway", f"{1000 * INTERNET_GB:.2f}"],
            ],
        ),
        "",
        "What `create_restore` and the sweep add is a few commands a restore. A provider bounds how fast everything",
        "comes back: restores are for sites, and many TB of one provider take their time.",
        "",
    ]  # fmt: skip


def _drills(figures: dict[str, Any]) -> list[str]:
    """What a TB costs that is opened, and all sites within `DrillDays`."""
    drill = figures["drill"]
    curve = {found["memory"]: found["mbps"] for found in drill["memory"]}
    mbps = min(NETWORK_MBPS, float(curve.get(DRILL_MB, drill["deflated"]["mbps"])))
    export = SITE_BYTES / PROVIDERS
    objects = 1e12 / export
    gets = objects * (math.ceil(export / drill["sliceBytes"]) + DRILL_GETS)
    seconds = 1e12 / 1e6 / mbps
    costs = {
        "Lambda, reading and inflating": seconds * DRILL_MB / 1024 * LAMBDA_GB_SECOND,
        "Lambda, requests": objects * LAMBDA_REQUEST,
        "S3, GET requests": gets * S3_GET,
    }
    tb = SITES * SITE_BYTES / 1e12
    days = DRILL_DAYS * DRILL_DUE
    return [
        "## Drills",
        "",
        f"One TB of exports of {export / MIB:.0f} MiB, opened completely, and the newest backup of each of",
        f"{SITES:,} sites within {DRILL_DAYS} days. A site is due again after {days:.0f} of them. From what",
        "`python -m benchmarks --only drill` measured on deflated members:",
        "",
        *table(
            ["", "a TB"],
            [
                ["objects", f"{objects:,.0f}"],
                [f"MB/s of one function of {DRILL_MB} MB", f"{mbps:.0f}"],
                ["S3 GETs: one for each slice, for the directory, the first and the last bytes", f"{gets:,.0f}"],
            ],
        ),
        "",
        *table(
            ["", "$ a TB"],
            [
                *([name, f"{cost:.2f}"] for name, cost in costs.items()),
                ["**together**", f"{sum(costs.values()):.2f}"],
                ["retrieval, were the backup in Glacier Instant Retrieval",
                 f"{1000 * S3_GLACIER_IR_GB_RETRIEVED:.2f}"],
            ],
        ),
        "",
        *table(
            [f"{SITES:,} sites", ""],
            [
                ["TB that are opened in a round", f"{tb:,.0f}"],
                ["`DrillGibPerDay` that keeps up", f"{tb * 1e12 / days / 2**30:,.0f}"],
                ["functions at work, all day", f"{tb * seconds / days / 86400:,.0f}"],
                ["objects a second", f"{SITES * PROVIDERS / days / 86400:,.1f}"],
                ["$ a round", f"{tb * sum(costs.values()):,.0f}"],
                ["$ a month", f"{tb * sum(costs.values()) * 30 / days:,.0f}"],
            ],
        ),
        "",
        "What is deflated less is opened faster. `drill-created` needs a partition for each function at work.",
        "",
    ]  # fmt: skip


def _clean_up(figures: dict[str, Any]) -> list[str]:
    one_pass = {found["what"]: found for found in figures["cleanUp"]["passes"] if found["atOnce"] == 1}
    looks = (
        "expire",
        "expire",
        "remove",
        "forget",
    )  # between the first and the removal there is one more look
    cpu = sum(one_pass[what]["cpuMs"] for what in looks) / 1000
    mongo = sum(one_pass[what]["mongo"] for what in looks)
    rate = CLEAN_UP_MB / VCPU_MB / cpu
    day, night = EXPIRIES_A_DAY / 86400, EXPIRIES_A_DAY / HOURS / 3600
    dollars = EXPIRIES_A_DAY * cpu * VCPU_MB / 1024 * LAMBDA_GB_SECOND
    lists = EXPIRIES_A_DAY * (PROVIDERS + 1) * 2 * S3_LIST
    return [
        "## Clean-up",
        "",
        "A backup that expires is marked, a week later its data goes, 400 days later its record. From the CPU",
        "that took in `python -m benchmarks --only cleanUp`:",
        "",
        *table(
            ["", ""],
            [
                ["expiries a day", f"{EXPIRIES_A_DAY:,}"],
                ["a second, all day", f"{day:.1f}"],
                [f"a second, all in the {HOURS} hours of the night", f"{night:.1f}"],
                ["CPU of one from its expiry to its end, ms", f"{cpu * 1000:.0f}"],
                ["MongoDB commands of one", f"{mongo:.0f}"],
                ["S3 requests of one: 2 lists and 1 deletion for each object and the manifest", (PROVIDERS + 1) * 3],
                [f"a second that one pass of {CLEAN_UP_MB} MB has the CPU for", f"{rate:.0f}"],
                [f"a second that {CLEAN_UP_PASSES} passes have it for, the most at once",
                 f"{rate * CLEAN_UP_PASSES:.0f}"],
                ["$ a day for Lambda", f"{dollars:.2f}"],
                ["$ a day for the lists", f"{lists:.2f}"],
            ],
        ),
        "",
        "Expiries that come faster wait and are removed later; nothing else waits behind them. More memory makes",
        "each pass faster in proportion, up to a whole processor.",
        "",
    ]  # fmt: skip


def _catalog() -> list[str]:
    lists = CATALOG_BACKUPS * (PROVIDERS + 1) / VERSIONS_LISTED
    rows = []
    both = (("`rebuild_catalog`", 1, REBUILD_SECONDS), ("`check_catalog`", 1 + PROVIDERS, CHECK_SECONDS))
    for name, reads, cpu in both:
        seconds = CATALOG_BACKUPS * max(reads * GET_SECONDS / CATALOG_AT_ONCE, cpu)
        s3 = lists * S3_LIST + CATALOG_BACKUPS * reads * S3_GET
        compute = seconds * VCPU_MB / 1024 * LAMBDA_GB_SECOND
        rows.append([name, f"{lists:,.0f}", f"{CATALOG_BACKUPS * reads:,}", f"{seconds / 3600:.1f}",
                     f"{s3:.2f}", f"{compute:.2f}"])  # fmt: skip
    pages = SITES // SCHEDULES_SAVED
    return [
        "## The catalogue",
        "",
        f"For {CATALOG_BACKUPS:,} backups of {PROVIDERS} providers, with {CATALOG_AT_ONCE} requests at once, each",
        f"answered within {GET_SECONDS} s as S3's guidelines have it. The rebuild reads each manifest, and the check",
        "each object's head as well, each with a whole processor. MongoDB gets one read a backup, and the rebuild",
        "writes one document:",
        "",
        *table(["", "S3 LISTs", "S3 GETs and HEADs", "hours", "$ for S3", "$ for Lambda"], rows),
        "",
        f"With {SITES:,} sites and 60 backups of each one rebuild would take weeks. Several at once, each for the",
        "users of a prefix, divide that by their number, until the database has enough: a store of that size needs",
        "its database's own backups first, to which a rebuild adds what they lack, at the price of a read each.",
        f"The schedules are saved in {pages:,} PUTs a day, for ${pages * S3_PUT:.2f}.",
        "",
    ]


def _quotas() -> list[str]:
    return [
        "## Quotas",
        "",
        "MongoDB commands of one call, as `tests/integration/test_quotas.py` counts them. Without a limit a call of",
        "the API reads the user's exceptions, by `_id`, which the figures above do not have in them:",
        "",
        *table(
            ["", "without a limit", "with all limits"],
            [[what, *both] for what, both in QUOTA_COMMANDS.items()],
        ),
        "",
        "The slots that are taken are read by an index, as many as the limit at most. The bytes that are stored are",
        "summed up by an index of the user's backups that have data: 6,000 entries for a user with 100 sites and 60",
        "backups of each. Whoever takes a slot at the same moment as another reads again.",
        "",
    ]


def _breaks(
    night: Night, nat: float, put_share: float, pollers: int, connections: int, puts: int
) -> list[str]:
    gateways = math.ceil(night.bytes * 8 / night.seconds / 100e9)
    waiting = 1 - night.moving_seconds / night.lambda_seconds
    items = [
        f"**NAT.** At ${NAT_GB} a GB it would cost {nat:.0f} times all else, and a gateway ends at 100 Gbit/s: "
        f"{gateways} of them. S3 must be reached through a gateway endpoint, which is free, and the providers "
        "through peering or PrivateLink.",
        f"**Lambda concurrency.** {night.concurrency:,} at once, where an account starts with 1,000: to be raised "
        "before. A function gets 1,000 new environments every 10 s, so the start of the night takes "
        f"{night.concurrency / 100:.0f} s. {waiting:.0%} of that time waits for exports to start: providers that "
        "prepare exports before the night would save it.",
        f"**Partitions and pollers.** A mapping runs one invocation a partition: {night.concurrency:,} partitions "
        f"and {pollers:,} pollers, against `MaximumPollers` of the template and 2,000 a poller group.",
        f"**MongoDB.** {night.mongo_per_second:,.0f} commands/s, {night.mongo_writes_per_second:,.0f} of them "
        f"writes, against about {MONGO_OPERATIONS_PER_NODE:,} of one large primary; {connections:,} connections "
        f"against {MONGO_CONNECTIONS:,}. The flow reaches jobs and parts by `_id`, so both collections shard by its "
        "hash; only the last backups of a site, which are read once a job, would then be asked of every shard. Every "
        "index more would cost a write each. Beyond one database the service is deployed in "
        "cells, each with its own topics, database and functions, and a site belongs to the cell of the hash of "
        "its id: nothing in the flow crosses sites.",
        f"**Providers.** {night.parts_per_second:,.0f} range requests and "
        f"{night.bytes / night.seconds / 1e9:.1f} GB a second reach them. `partsInFlight` bounds a task; schedules "
        "spread over the night, each site at a minute of its own, bound the sum.",
        "**S3.** A prefix takes 3,500 PUTs a second and splits under load. Keys begin with the user's id, so that "
        f"{puts / night.seconds:,.0f} a second are spread over prefixes. PUTs are {put_share:.0%} of the price: "
        "larger parts make it smaller, and cost no memory here.",
    ]
    wrapped = [
        textwrap.fill(f"{number}. {item}", 110, subsequent_indent="   ", break_on_hyphens=False)
        for number, item in enumerate(items, 1)
    ]
    return "\n".join(wrapped).splitlines()


if __name__ == "__main__":
    write(json.loads((ROOT / "benchmarks/figures.json").read_text()))
