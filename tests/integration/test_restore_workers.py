"""What an invocation that gives an object back does while its bytes are under way, on a real Mongo and S3."""

from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest

from local.services.service import Service
from sitebackup.domain import restoring
from sitebackup.domain.policy import Policy
from sitebackup.ports import no_deadline
from sitebackup.restore.recorder import RestoreRecorder
from sitebackup.restore.restore_lease import ENDS_EARLY, RestoreLease
from tests.builders import a_restore
from tests.integration.mock_server import serve
from tests.integration.real_stack import Stack


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
