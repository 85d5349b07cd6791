"""Downloads on a real Mongo and a real S3: the link gives the bytes, and the removal waits for it."""

from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
import requests
from awscrt import checksums

from local.services.service import Service
from sitebackup import bootstrap
from sitebackup.domain.change import Change
from sitebackup.domain.checksum import encode_crc
from sitebackup.domain.errors import StateForbids
from sitebackup.domain.job import Status
from sitebackup.domain.retention import Action, Why
from tests.builders import BY_SERVICE
from tests.integration.real_stack import DELETE_GRACE, GRACE, Stack

SECOND = timedelta(seconds=1)


@pytest.fixture
def stack(mongo: Service, s3: Service) -> Iterator[Stack]:
    stack = Stack(mongo.address, s3.address, f"downloads-{uuid4().hex}")
    stack.clock = bootstrap.now()  # the one by which S3 decides whether a link has ended
    yield stack
    stack.close()


def fetch(url: str) -> requests.Response:
    return requests.get(url, timeout=20)


def test_the_bytes_behind_a_link_have_the_size_and_the_checksum_that_it_is_given_with(stack: Stack) -> None:
    job = stack.a_backup()
    stack.deliver()
    download = stack.create_download()(BY_SERVICE, job.id, "site")
    answer = fetch(download.link.url)
    assert answer.status_code == 200
    assert len(answer.content) == download.stored.size
    assert encode_crc(checksums.crc64nvme(answer.content)) == download.stored.checksum_crc64nvme
    assert answer.content == stack.served.by_provider["site"].content
    assert download.file_name in answer.headers["Content-Disposition"]


def test_a_link_is_to_the_version_that_was_verified_whatever_came_after_it(stack: Stack) -> None:
    job = stack.a_backup()
    stack.deliver()
    assert stack.s3 is not None
    stack.s3.put_object(Bucket="backups", Key=job.key("site"), Body=b"from a run that came too late")
    answer = fetch(stack.create_download()(BY_SERVICE, job.id, "site").link.url)
    assert answer.content == stack.served.by_provider["site"].content


def test_a_deletion_is_accepted_and_the_removal_waits_until_the_link_is_over(stack: Stack) -> None:
    job = stack.a_backup()
    stack.deliver()
    stack.change_job().delete(BY_SERVICE, job.id, None)
    stack.pass_time(DELETE_GRACE - 2 * SECOND)
    link = stack.create_download()(BY_SERVICE, job.id, "site").link
    stack.clock = link.expires_at
    assert stack.clean() == 1
    pin_end = max(stack.job(job.id).pins.values())
    found, _ = stack.get_retention()(BY_SERVICE, job.user_id, job.site_id, 10, None)
    assert [(decision.action, decision.reason, decision.until) for _, decision in found] == [
        (Action.KEEP, Why.PINNED, pin_end)
    ]
    stored = stack.job(job.id).tasks["site"].object
    assert stored is not None
    assert stack.at_key(job) == ([], [stored.version_id])
    with pytest.raises(StateForbids, match="its data is being removed"):
        stack.create_download()(BY_SERVICE, job.id, "site")
    stack.clock = pin_end - SECOND
    assert stack.clean() == 0
    stack.clock = pin_end
    assert stack.clean() == 1
    assert stack.job(job.id).status is Status.DELETED
    assert stack.at_key(job) == ([], [])


def test_a_clean_up_beside_a_link_takes_the_leftovers_and_not_what_it_leads_to(stack: Stack) -> None:
    job = stack.a_backup()
    stack.deliver(1)
    ran_twice = {"site": stack.job(job.id).tasks["site"].replace(runs=2)}
    stack.recorder.apply(job.id, lambda job, moment: Change(job.replace(tasks=ran_twice)))
    stack.deliver()
    assert stack.s3 is not None
    stack.s3.put_object(Bucket="backups", Key=job.key("site"), Body=b"from a run that came too late")
    url = stack.create_download()(BY_SERVICE, job.id, "site").link.url
    assert len(stack.at_key(job)[1]) == 2
    stack.pass_time(GRACE)
    stack.clean()
    assert len(stack.at_key(job)[1]) == 1
    assert fetch(url).content == stack.served.by_provider["site"].content
