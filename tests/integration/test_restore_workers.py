"""What an invocation that gives an object back does while its bytes are under way, on a real Mongo and S3."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from local.services.service import Service
from mock_providers.client import MockSite
from sitebackup.adapters.tus_imports.imports import TusImports
from sitebackup.domain import restoring
from sitebackup.domain.events import RestoreTaskCreated
from sitebackup.domain.policy import Policy
from sitebackup.domain.reason import Code
from sitebackup.domain.restore import Restore, RestoreStatus
from sitebackup.ports.runtime import no_deadline
from sitebackup.restore.create_restore import RestoreRequest
from sitebackup.restore.recorder import RestoreRecorder
from sitebackup.restore.restore_lease import ENDS_EARLY, RestoreLease
from sitebackup.restore.restore_provider import PAUSE_AFTER_BREAK
from tests.builders import BY_SERVICE, a_restore
from tests.integration.mock_server import serve
from tests.integration.real_stack import MIB, Stack, an_id


@pytest.fixture
def stack(mongo: Service, s3: Service) -> Iterator[Stack]:
    with serve() as url:
        stack = Stack(mongo.address, s3.address, f"workers-{uuid4().hex}", export_url=url)
        yield stack
        stack.close()


@pytest.mark.parametrize("lease_seconds", [7, 8, 20, 90])
def test_a_lease_is_renewed_in_time_however_short_it_is(stack: Stack, lease_seconds: int) -> None:
    recorder = RestoreRecorder(stack.real.restores, Policy(lease_seconds=lease_seconds), stack.now, stack.bag)
    restore = a_restore(safety_backup=False)
    recorder.create(restore)
    recorder.apply(restore.id, restoring.start_sending)
    ref = restore.ref.task("site")
    started = recorder.apply_to_task(ref, restoring.start_task, 0, "me")
    assert started is not None
    lease = RestoreLease(recorder, ref, "me", started)
    left = lease.time_left(no_deadline)
    assert left() == lease_seconds - ENDS_EARLY.total_seconds()
    for _ in range(2 * lease_seconds):
        stack.pass_time(timedelta(seconds=1))
        assert lease.goes_on()
        assert left() > 0


def a_restore_of(stack: Stack, **control: Any) -> tuple[MockSite, Restore]:
    """Of a new site, whose provider has changed since the backup, and is set like that."""
    site = MockSite(stack.adapters.providers["site"].export_url.split("/site/")[0], user_id=an_id())
    site.set(size=2 * MIB)
    job = stack.a_backup(user_id=site.user_id, site_id=site.site_id)
    stack.deliver()
    site.set(size=1000, revision=2, **control)
    request = RestoreRequest(
        user_id=job.user_id, site_id=job.site_id, job_id=job.id, providers="all", safety_backup=False
    )
    return site, stack.create_restore()(BY_SERVICE, request, None, None)


def test_the_rest_of_a_slice_that_broke_is_sent_after_a_pause(stack: Stack) -> None:
    """A provider that has not seen the break answers that the upload is locked; it is not asked all the time."""
    _, restore = a_restore_of(stack, imports={"cutAt": {"bytes": MIB, "times": 1}})
    pauses: list[float] = []
    stack.sleep = pauses.append
    stack.deliver()
    assert stack.restore(restore.id).status is RestoreStatus.DONE
    assert pauses == [PAUSE_AFTER_BREAK]


@pytest.mark.parametrize("token", ["the token", "another one"])
def test_each_request_to_an_import_api_brings_the_providers_token(stack: Stack, token: str) -> None:
    site, restore = a_restore_of(stack, token="the token")
    provider = stack.adapters.providers["site"].replace(auth_secret_arn="arn:of:the:secret")
    worker = replace(
        stack.restore_provider(),
        imports=TusImports(8.0, lambda arn, since: token, stack.now),
        providers={"site": provider},
    )
    for event in stack.bag.drain():
        assert isinstance(event, RestoreTaskCreated)
        worker(event, "test", stack.deadline())
    ended = stack.restore(restore.id)
    if token == "the token":
        assert ended.status is RestoreStatus.DONE
        assert site.imports()["imported"] == 1
        assert not any("401" in answer for answer in site.imports()["byAnswer"])
    else:
        assert ended.reason is not None
        assert ended.reason.code is Code.IMPORT_FORBIDDEN
