"""`python -m benchmarks.engine EXPORT S3 KEY PART_MIB AT_ONCE`: the bare engine as a client of its own.

Credentials are read from the environment. The last line is JSON: the seconds and CPU seconds of the transfer itself.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import boto3
from botocore.config import Config

from benchmarks.measure import own_cpu
from sitebackup.adapters.http_exports.exports import HttpExports
from sitebackup.adapters.s3.storage import S3Storage
from sitebackup.domain.job import Part
from sitebackup.domain.plan import MIB, plan_parts
from sitebackup.domain.provider import Provider
from sitebackup.transfer.checksums import combine_crcs


def storage(endpoint: str) -> S3Storage:
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        config=Config(
            s3={"addressing_style": "path"},
            read_timeout=60,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    return S3Storage(client, "backups")


def main(url: str, endpoint: str, key: str, part_mib: int, at_once: int) -> None:
    s3 = storage(endpoint)
    exports = HttpExports(part_mib * MIB, 30.0, lambda arn, since: "", lambda: datetime.now(UTC))
    provider = Provider(name="site", export_url=url, allow_networks=("127.0.0.0/8",))
    started, cpu = time.perf_counter(), own_cpu()
    with exports.probe(provider, "", "", 1) as probe:
        size, validator = probe.size, probe.validator
    assert size is not None
    assert validator is not None
    plan = plan_parts(size, part_mib * MIB, validator)
    upload = s3.create_upload(key)

    def move(number: int) -> Part:
        part = plan.part(number)
        with exports.open_range(provider, "", "", part.start, part.length, validator, size) as export:
            return s3.put_part(key, upload, number, export, part.length)

    with ThreadPoolExecutor(at_once) as pool:
        parts = list(pool.map(move, range(1, plan.parts + 1)))
    crc = combine_crcs(parts)
    s3.complete(key, upload, plan, parts, crc)
    stored = s3.head(key)
    assert stored is not None
    assert (stored.size, stored.checksum_crc64nvme) == (size, crc)
    print(json.dumps({"seconds": time.perf_counter() - started, "cpu": own_cpu() - cpu}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
