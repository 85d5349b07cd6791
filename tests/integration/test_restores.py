"""A backup comes back: the use cases on a real Mongo, a real S3 and the mock providers' import APIs."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from local.services.service import Service
from mock_providers.client import MockSite
from sitebackup.domain.errors import ActiveJob
from sitebackup.domain.job import Job, Status
from sitebackup.domain.restore import Restore, RestoreStatus
from sitebackup.restore.create_restore import RestoreRequest
from tests.builders import BY_SERVICE
from tests.integration.mock_server import serve
from tests.integration.real_stack import MIB, Stack, an_id

SIZE = 11 * MIB


@pytest.fixture(scope="module")
def providers() -> Iterator[str]:
    with serve() as url:
        yield url


@dataclass
class Scene:
    """A site that was backed up and has changed since."""

    stack: Stack
    site: MockSite
    db: MockSite
    job: Job
    before: dict[str, str]
    """SHA-256 of each export when it was backed up."""

    @property
    def sites(self) -> dict[str, MockSite]:
        return {"site": self.site, "db": self.db}

    def held(self) -> dict[str, str]:
        """SHA-256 of what each provider exports now."""
        return {name: site.sha256() for name, site in self.sites.items()}

    def restore(self, **changes: Any) -> Restore:
        fields: dict[str, Any] = {
            "user_id": self.job.user_id,
            "site_id": self.job.site_id,
            "job_id": self.job.id,
            "providers": "all",
        }
        return self.stack.create_restore()(BY_SERVICE, RestoreRequest(**fields | changes), None, None)


@pytest.fixture
def scene(mongo: Service, s3: Service, providers: str) -> Iterator[Scene]:
    stack = Stack(mongo.address, s3.address, f"restores-{uuid4().hex}", export_url=providers)
    user_id, site_id = an_id(), an_id()
    site, db = (
        MockSite(providers, provider=name, user_id=user_id, site_id=site_id).set(size=size)
        for name, size in (("site", SIZE), ("db", MIB))
    )
    job = stack.a_backup(user_id=user_id, site_id=site_id, providers=["site", "db"])
    stack.deliver()
    assert stack.job(job.id).status is Status.DONE
    scene = Scene(stack, site, db, stack.job(job.id), {})
    scene.before = scene.held()
    for each in (site, db):
        each.set(size=MIB // 2, revision=2)
    yield scene
    stack.close()


def test_a_site_is_as_it_was_and_what_it_had_become_is_in_the_safety_backup(scene: Scene) -> None:
    after_change = scene.held()
    restore = scene.restore()
    assert restore.status is RestoreStatus.BACKING_UP
    scene.stack.deliver()
    done = scene.stack.restore(restore.id)
    assert (done.status, done.reason) == ("done", None)
    assert scene.held() == scene.before
    assert done.safety_job_id is not None
    safety = scene.stack.job(done.safety_job_id)
    assert safety.status is Status.DONE
    assert scene.stack.job(scene.job.id).pins == {}
    assert not done.is_pinning
    again = scene.restore(job_id=safety.id, safety_backup=False)
    scene.stack.deliver()
    assert scene.stack.restore(again.id).status is RestoreStatus.DONE
    assert scene.held() == after_change


def test_a_backup_and_a_restore_of_one_site_never_run_at_once(scene: Scene) -> None:
    restore = scene.restore()
    with pytest.raises(ActiveJob) as refused:
        scene.stack.a_backup(user_id=scene.job.user_id, site_id=scene.job.site_id)
    assert refused.value.members == {"restoreId": restore.id}
    scene.stack.deliver()
    job = scene.stack.a_backup(user_id=scene.job.user_id, site_id=scene.job.site_id)
    with pytest.raises(ActiveJob) as refused:
        scene.restore()
    assert refused.value.members == {"jobId": job.id}
