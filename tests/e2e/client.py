"""The HTTP API and the bucket as a test sees them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from local.services.s3 import BUCKET, s3_client
from mock_providers.client import MockSite
from tests.e2e.secrets import PRESIGNED_URL, in_text

FINAL = ("done", "failed", "cancelled", "deleted")
LIMIT_SECONDS = 120.0
"""For whatever must come true; generous, as other tests share the machine."""

Json = dict[str, Any]


def wait_until[T](
    what: str, condition: Callable[[], T | None], limit: float = LIMIT_SECONDS, every: float = 0.05
) -> T:
    """The first true value of `condition`, tried every so many seconds. Fails with `what` after `limit`."""
    deadline = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {limit:.0f} s: {what}"
        time.sleep(every)
    return value


@dataclass(frozen=True)
class Api:
    """The HTTP API at `url`."""

    url: str
    session: requests.Session = field(default_factory=requests.Session)

    def request(self, method: str, path: str, *, timeout: float = 40, **more: Any) -> requests.Response:
        """The answer, in which no secret may stand but the URL of a download."""
        answer = self.session.request(method, self.url + path, timeout=timeout, **more)
        assert not in_text(f"the answer to {method} {path}", f"{answer.headers}{answer.text}", PRESIGNED_URL)
        return answer

    def get(self, path: str, *, timeout: float = 40, **query: Any) -> requests.Response:
        return self.request("GET", path, timeout=timeout, params=query)

    def post(self, path: str, body: Json | None = None, **more: Any) -> requests.Response:
        return self.request("POST", path, json=body, **more)

    def create(self, *sites: MockSite, **fields: Any) -> Json:
        """The new job of these exports, which belong to one site."""
        one = sites[0]
        body = {"userId": one.user_id, "siteId": one.site_id, "providers": [site.provider for site in sites]}
        answer = self.post("/backup", {**body, **fields})
        assert answer.status_code == 202, answer.text
        return json_of(answer)

    def restore(self, job: Json, **fields: Any) -> Json:
        """The new restore of this backup, of all its providers and without a safety backup unless `fields` differ."""
        answer = self.post("/restores", restore_request(job, **fields))
        assert answer.status_code == 202, answer.text
        return json_of(answer)

    def change(self, job: Json, action: str) -> Json:
        """The job or restore after `retry`, `cancel` or, of a job, `undelete`."""
        answer = self.post(f"{path_of(job)}/{action}")
        assert answer.status_code == 202, answer.text
        return json_of(answer)

    def job(self, job: Json) -> Json:
        """The job or restore as it stands."""
        answer = self.get(path_of(job))
        assert answer.status_code == 200, answer.text
        return json_of(answer)

    def wait(
        self, job: Json, what: str, condition: Callable[[Json], Any], limit: float = LIMIT_SECONDS
    ) -> Json:
        """The job or restore once `condition` holds, by long polls. Fails with it after `limit` seconds."""
        deadline = time.monotonic() + limit
        while not condition(job):
            assert time.monotonic() < deadline, f"not within {limit:.0f} s: {what}; it is: {job}"
            answer = self.get(path_of(job), wait=2, since=job["version"])
            if answer.status_code == 503:  # tests take MongoDB away
                time.sleep(0.2)
                continue
            assert answer.status_code == 200, answer.text
            job = json_of(answer)
        return job

    def finish(self, job: Json, limit: float = LIMIT_SECONDS) -> Json:
        """The job or restore in a final status."""
        return self.wait(job, "a final status", lambda job: job["status"] in FINAL, limit)

    def done(self, job: Json, limit: float = LIMIT_SECONDS) -> Json:
        """The job or restore, which must end as done."""
        job = self.finish(job, limit)
        assert job["status"] == "done", job
        return job


class Bucket:
    """The S3 server's bucket, asked directly."""

    def __init__(self, endpoint_url: str) -> None:
        self._s3 = s3_client(endpoint_url)

    def assert_holds(self, job: Json, *sites: MockSite) -> None:
        """Each task of the done job has an object with exactly the bytes of its export, and nothing beside it."""
        assert job["tasks"].keys() == {site.provider for site in sites}
        for site in sites:
            task = job["tasks"][site.provider]
            stored = task["object"]
            assert (stored["bucket"], stored["key"]) == (BUCKET, key(job, site.provider))
            assert stored["size"] == site.size == task["progress"]["bytesDone"]
            assert self.sha256(stored["key"], stored["versionId"]) == site.archive.sha256(), site
            head = self._s3.head_object(Bucket=BUCKET, Key=stored["key"], ChecksumMode="ENABLED")
            assert head["ChecksumCRC64NVME"] == stored["checksumCRC64NVME"]
            assert head["VersionId"] == stored["versionId"], "the latest version is another one"

    def sha256(self, key: str, version: str) -> str:
        digest = hashlib.sha256()
        body = self._s3.get_object(Bucket=BUCKET, Key=key, VersionId=version)["Body"]
        for chunk in body.iter_chunks(1 << 20):
            digest.update(chunk)
        return digest.hexdigest()

    def remove(self, stored: Json) -> None:
        """Takes the object of a done task away, as nobody should."""
        self._s3.delete_object(Bucket=BUCKET, Key=stored["key"], VersionId=stored["versionId"])

    def uploads(self, key: str) -> list[str]:
        """Open multipart uploads at exactly this key."""
        found = self._s3.list_multipart_uploads(Bucket=BUCKET, Prefix=key).get("Uploads", [])
        return [upload["UploadId"] for upload in found if upload["Key"] == key]

    def versions(self, key: str) -> list[str]:
        """Versions at exactly this key, delete markers included."""
        listing = self._s3.list_object_versions(Bucket=BUCKET, Prefix=key)
        found = listing.get("Versions", []) + listing.get("DeleteMarkers", [])
        return [version["VersionId"] for version in found if version["Key"] == key]

    def is_empty(self, job: Json) -> bool:
        """Whether no object and no open upload is left at any key of the job."""
        keys = [key(job, provider) for provider in job["tasks"]]
        return not any(self.uploads(key) or self.versions(key) for key in keys)

    def wait_empty(self, *jobs: Json) -> None:
        wait_until("nothing is left in S3", lambda: all(map(self.is_empty, jobs)))

    def wait_clean(self, job: Json) -> None:
        """No open upload, and one version of each object of the done job."""
        objects: Mapping[str, Json] = {name: task["object"] for name, task in job["tasks"].items()}

        def clean() -> bool:
            return all(
                not self.uploads(one["key"]) and self.versions(one["key"]) == [one["versionId"]]
                for one in objects.values()
            )

        wait_until(f"one version and no upload at the keys of {job['jobId']}", clean)


def key(job: Json, provider: str) -> str:
    """Where a task's object is, as the design says."""
    return f"{job['userId']}/{job['siteId']}/{job['jobId']}/{provider}.zip"


def path_of(document: Json) -> str:
    """Of a job or a restore."""
    if "restoreId" in document:
        return f"/restores/{document['restoreId']}"
    return f"/backup/{document['jobId']}"


def restore_request(job: Json, **fields: Any) -> Json:
    """The body that asks for this backup back, of all its providers and without a safety backup."""
    ids = {name: job[name] for name in ("userId", "siteId", "jobId")}
    return {**ids, "providers": "all", "safetyBackup": False, **fields}


def json_of(answer: requests.Response) -> Json:
    document: Json = answer.json()
    return document
