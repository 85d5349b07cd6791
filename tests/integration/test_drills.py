"""Drills on a real S3 server and a real MongoDB: bits that flip on its disk, versions replaced or gone."""

import io
import random
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from local.services.s3 import BUCKET, S3
from local.services.service import Service
from sitebackup.domain.drill import Drill, DrillState
from sitebackup.domain.job import Job, Status, StoredObject
from tests.builders import BY_SERVICE
from tests.disk import flip_on_disk
from tests.fakes.exports import MemoryExport
from tests.integration.real_stack import Stack

MIB = 1 << 20
DAY = timedelta(days=1)
CONTENTS = {f"{number}.bin": random.Random(number).randbytes(2 * MIB) for number in range(4)}


def an_export(method: int = zipfile.ZIP_STORED) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as archive:
        for name, content in CONTENTS.items():
            archive.writestr(name, content)
    return target.getvalue()


@pytest.fixture
def stack(mongo: Service, s3: Service) -> Iterator[Stack]:
    stack = Stack(mongo.address, s3.address, f"drills-{uuid4().hex}")
    stack.served.by_provider["site"] = MemoryExport(an_export())
    yield stack
    stack.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[S3]:
    """A server whose data no other test has."""
    service = S3(tmp_path)
    try:
        service.start()
        service.wait_ready()
        yield service
    finally:
        service.stop()


def backed_up(stack: Stack, **changes: object) -> Job:
    job = stack.a_backup(**changes)
    stack.deliver()
    assert stack.job(job.id).status is Status.DONE
    return stack.job(job.id)


def stored_of(job: Job) -> StoredObject:
    stored = job.tasks["site"].object
    assert stored is not None
    return stored


def opened(stack: Stack, job: Job) -> Drill:
    """What a drill finds that somebody asks for."""
    stack.verify_backup()(BY_SERVICE, job.id)
    for _ in range(20):
        stack.deliver()
        if stack.job(job.id).tasks["site"].drilling is None:
            break
        stack.pass_time(timedelta(minutes=30))
        stack.sweep()
    drill = stack.job(job.id).tasks["site"].drill
    assert drill is not None
    return drill


def test_a_whole_backup_is_opened_on_the_real_services_and_its_site_is_proven(stack: Stack) -> None:
    job = backed_up(stack)
    drill = opened(stack, job)
    assert (drill.state, drill.members, drill.compared, drill.of_newest) == (DrillState.OK, 4, True, True)
    assert stack.get_drills().of_site(BY_SERVICE, job.user_id, job.site_id).verified_at == drill.at
    assert stack.get_drills()().day.bytes >= stored_of(job).size
    assert not stack.job(job.id).pins


def test_a_bit_that_flips_on_the_servers_disk_is_damage_and_the_member_is_named(
    mongo: Service, disk: S3, tmp_path: Path
) -> None:
    stack = Stack(mongo.address, disk.address, f"drills-{uuid4().hex}")
    export = an_export()
    stack.served.by_provider["site"] = MemoryExport(export)
    try:
        job = backed_up(stack)
        part = export[5 * MIB :]  # the second one
        flip_on_disk(tmp_path, part, part.index(CONTENTS["3.bin"][5000:5100]))
        drill = opened(stack, job)
        assert (drill.state, drill.member) == (DrillState.DAMAGED, "3.bin")
        assert stack.get_drills().of_site(BY_SERVICE, job.user_id, job.site_id).verified_at is None
    finally:
        stack.close()


def test_a_version_that_was_replaced_is_damaged_and_the_backup_before_takes_its_place(stack: Stack) -> None:
    earlier = backed_up(stack)
    stack.pass_time(DAY)
    newest = backed_up(stack, user_id=earlier.user_id, site_id=earlier.site_id)
    assert stack.real.jobs.holds_newest_good(newest)
    assert not stack.real.jobs.holds_newest_good(earlier)
    stored, data = stored_of(newest), bytearray(an_export())
    data[data.index(CONTENTS["2.bin"][500:600])] ^= 1
    assert stack.s3 is not None
    planted = stack.s3.put_object(Bucket=BUCKET, Key=stored.key, Body=bytes(data))["VersionId"]
    stack.database["jobs"].update_one(
        {"_id": newest.id}, {"$set": {"tasks.site.object.versionId": planted}}
    )  # as if S3 gave other bytes under the version's name
    drill = opened(stack, newest)
    assert (drill.state, drill.member) == (DrillState.DAMAGED, "2.bin")
    newest, earlier = stack.job(newest.id), stack.job(earlier.id)
    assert newest.damaged
    assert not stack.real.jobs.holds_newest_good(newest)
    assert stack.real.jobs.holds_newest_good(earlier)
    now = stack.now()
    for providers in ([], ["site"]):
        found = stack.real.jobs.newest_good(newest.user_id, newest.site_id, now, providers)
        assert found is not None
        assert found.id == earlier.id
    second = earlier.tasks["site"].drill
    assert second is not None
    assert second.is_proof


def test_a_version_that_is_gone_is_unread_and_not_damaged(stack: Stack) -> None:
    job = backed_up(stack)
    stored = stored_of(job)
    assert stack.s3 is not None
    stack.s3.delete_object(Bucket=BUCKET, Key=stored.key, VersionId=stored.version_id)
    drill = opened(stack, job)
    assert (drill.state, drill.compared) == (DrillState.UNREAD, False)
    assert stack.get_drills().of_site(BY_SERVICE, job.user_id, job.site_id).verified_at is None


def test_a_run_begins_the_drills_that_are_due_and_counts(stack: Stack) -> None:
    job = backed_up(stack)
    assert stack.run_drills()(stack.deadline()) == 1
    assert stack.run_drills()(stack.deadline()) == 0, "it is under way"
    assert stack.get_drills()().coverage.opened == 0
    stack.deliver()
    assert stack.run_drills()(stack.deadline()) == 0
    coverage = stack.get_drills()().coverage
    assert (coverage.sites, coverage.opened, coverage.overdue) == (1, 1, 0)
    stack.pass_time(23 * DAY)
    assert stack.run_drills()(stack.deadline()) == 0, "its proof is young"
    stack.pass_time(2 * DAY)
    assert stack.run_drills()(stack.deadline()) == 1
    drill = stack.job(job.id).tasks["site"].drill
    assert drill is not None
    assert drill.is_proof
