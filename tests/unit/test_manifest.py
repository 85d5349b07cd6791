"""The manifest of a done job: the same bytes whoever makes it, and every field that a reader needs."""

import json
from typing import Any

import pytest

from sitebackup.domain.job import Job
from sitebackup.domain.manifest import Manifest, ManifestTask, manifest_of, read_manifest
from sitebackup.domain.task_ref import RestoreRef
from sitebackup.domain.transitions.endings import finish_job, finish_task
from tests.unit.jobs import DB, MOMENT, SITE, changed, planned, stored

SIZE = 1000
PARTS = 5
WRITTEN = """{
 "schema": 1,
 "jobId": "cccccccccccccccccccccccc",
 "userId": "aaaaaaaaaaaaaaaaaaaaaaaa",
 "siteId": "bbbbbbbbbbbbbbbbbbbbbbbb",
 "attempt": 1,
 "createdAt": "2030-01-31T12:00:00Z",
 "startedAt": "2030-01-31T12:00:00Z",
 "sealedAt": "2030-01-31T12:00:00Z",
 "expiresAfterDays": 9,
 "lock": null,
 "maxBytes": null,
 "safetyFor": {
  "restoreId": "dddddddddddddddddddddddd",
  "attempt": 2
 },
 "idempotencyKey": null,
 "requestDigest": null,
 "tasks": {
  "db": {
   "object": {
    "bucket": "b",
    "key": "k",
    "size": 1000,
    "checksumCRC64NVME": "AAAAAAAAAAA=",
    "versionId": "v"
   },
   "finishedAt": "2030-01-31T12:00:00Z",
   "runs": 0,
   "startedAnew": false
  },
  "site": {
   "object": {
    "bucket": "b",
    "key": "k",
    "size": 1000,
    "checksumCRC64NVME": "AAAAAAAAAAA=",
    "versionId": "v",
    "parts": 5,
    "validator": "\\"1\\""
   },
   "finishedAt": "2030-01-31T12:00:00Z",
   "runs": 1,
   "startedAnew": false
  }
 }
}"""


def sealed() -> Job:
    """Its tasks got done in the order of their names."""
    job = changed(finish_task(planned(), MOMENT, DB, stored(SIZE), 1))
    return changed(finish_task(job, MOMENT, SITE, stored(SIZE), PARTS))


def test_a_manifest_says_what_each_object_is_and_how_it_was_read() -> None:
    job = sealed()
    upload = planned().tasks["site"].upload
    assert upload is not None
    assert upload.plan is not None
    manifest = read_manifest(manifest_of(job))
    ended: dict[str, Any] = {"finished_at": MOMENT.now, "started_anew": False}
    assert manifest == Manifest(
        job_id=job.id,
        user_id=job.user_id,
        site_id=job.site_id,
        attempt=1,
        created_at=job.created_at,
        started_at=MOMENT.now,
        sealed_at=MOMENT.now,
        expires_after_days=None,
        lock=None,
        max_bytes=None,
        safety_for=None,
        idempotency_key=None,
        request_digest=None,
        tasks={
            "site": ManifestTask(
                object=stored(SIZE).replace(parts=PARTS, validator=upload.plan.validator), runs=1, **ended
            ),
            "db": ManifestTask(object=stored(SIZE), runs=0, **ended),
        },
    )


def test_every_field_of_the_manifest_itself_is_written() -> None:
    written = json.loads(manifest_of(sealed()))
    assert set(written) == {
        "schema", "jobId", "userId", "siteId", "attempt", "createdAt", "startedAt", "sealedAt",
        "expiresAfterDays", "lock", "maxBytes", "safetyFor", "idempotencyKey", "requestDigest", "tasks",
    }  # fmt: skip
    assert written["schema"] == 1


def test_a_manifest_is_the_same_bytes_before_and_after_the_job_is_done_and_in_any_order_of_tasks() -> None:
    job = sealed()
    turned = job.replace(tasks=dict(reversed(job.tasks.items())))
    assert list(turned.tasks) != list(job.tasks)
    assert manifest_of(turned) == manifest_of(job)
    assert manifest_of(changed(finish_job(job, MOMENT, 1))) == manifest_of(job)


def test_the_bytes_of_a_manifest_stay_as_they_are() -> None:
    """Those in the bucket are compared with them for ever (I18)."""
    restore = RestoreRef(restore_id="d" * 24, attempt=2)
    job = sealed().replace(user_id="a" * 24, site_id="b" * 24, expires_after_days=9, safety_for=restore)
    assert manifest_of(job).decode() == WRITTEN


def test_a_job_that_is_not_sealed_has_no_manifest() -> None:
    half = changed(finish_task(planned(), MOMENT, DB, stored(SIZE), 1))
    for job in (planned(), half, half.replace(sealed_at=MOMENT.now), sealed().replace(sealed_at=None)):
        with pytest.raises(ValueError, match=f"job {job.id} is not sealed"):
            manifest_of(job)


def test_no_name_of_a_provider_has_its_object_at_the_key_of_the_manifest() -> None:
    job = planned()
    assert job.manifest_key == f"{job.user_id}/{job.site_id}/{job.id}/manifest.json"
    assert job.key("manifest") != job.manifest_key
