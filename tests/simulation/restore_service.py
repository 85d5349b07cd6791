"""The service with a backup that is done, a site that went on living, and a restore that is asked for."""

from dataclasses import dataclass, field
from datetime import timedelta

from sitebackup.domain.job import Job, Status
from sitebackup.domain.policy import Policy
from sitebackup.domain.restore import Restore, RestoreStatus
from sitebackup.restore.create_restore import RestoreRequest
from tests.builders import BY_SERVICE
from tests.simulation.service import (
    CLEAN_UP_INTERVAL,
    MAX_SWEEPS,
    OUTAGES,
    SITE_ID,
    USER_ID,
    SimulatedService,
)

DELETE_GRACE_SECONDS = 60
"""So short that a clean-up during the restore finds the backup due."""
KEY = "the key of the call"
ASKS = 8
"""So often the call that creates the restore is repeated under its key: more than it can fail in a row."""
CLEAN_UPS = 4


@dataclass
class SimulatedRestore(SimulatedService):
    """Faults count from the call that creates the restore on."""

    policy: Policy = field(default_factory=lambda: Policy(delete_grace_seconds=DELETE_GRACE_SECONDS))
    safety_backup: bool = True
    target_site_id: str = SITE_ID

    def __post_init__(self) -> None:
        super().__post_init__()
        self.finish()
        assert self.job.status is Status.DONE
        self.source_content = {name: export.content for name, export in self.served.items()}
        """What the backup holds, by provider."""
        self.change_exports()
        self.calls.clear()
        self._all_is_well = False
        for _ in range(ASKS):
            self.ask_for_restore()
            if not self.is_refused:
                break

    def ask_for_restore(self) -> None:
        """A call of the API."""
        request = RestoreRequest(
            user_id=USER_ID,
            site_id=SITE_ID,
            job_id=self.job_id,
            providers="all",
            target_site_id=self.target_site_id,
            safety_backup=self.safety_backup,
        )
        with self.invocation():
            self.create_restore(BY_SERVICE, request, None, KEY)

    @property
    def is_refused(self) -> bool:
        """Whether no call has created a restore, as the backup's data was gone already."""
        return not self.restores.all()

    @property
    def restore(self) -> Restore:
        """As it is stored."""
        (restore,) = self.restores.all()
        return restore

    @property
    def active(self) -> list[Job]:
        """Backups that go on."""
        return [job for job in self.jobs.all() if job.is_active]

    def finish_restore(self) -> None:
        """From here on all goes well, and the sweep finds what got lost: the restore ends, and its pin goes."""
        self._all_is_well = True
        for _ in range(MAX_SWEEPS):
            self.deliver_all()
            assert not self.unexpected, self.unexpected[0]
            checks = [self.restore.next_check_at, *(job.next_check_at for job in self.active)]
            due = min((check for check in checks if check), default=None)
            if due is None:
                break
            self.clock.advance_to(due)
            self.sweep()
        assert not self.active, f"a backup does not end: {self.active}"
        assert not self.restore.is_active, f"the restore does not end: {self.restore}"
        assert not self.restore.is_pinning, f"nobody takes the pin out: {self.restore}"
        assert not self.jobs.claimed, "the site is claimed by what is over"

    def check_end(self) -> Restore:
        """The restore has ended as it must, and what it held is free."""
        assert not self.unexpected, self.unexpected[0]
        assert not self.imports.mistakes, self.imports.mistakes
        assert not self.storage.mistakes, self.storage.mistakes
        restore = self.restore
        for name, task in restore.tasks.items():
            if task.object.size:  # an upload of nothing is whole at once, whether its answer arrives or not
                times = self.imports.whole[restore.id, name]
                assert times <= restore.attempt, "an upload was sent whole twice in one attempt"
            if task.status is Status.DONE:
                assert (
                    self.imports.imported[name, restore.user_id, restore.site_id] == self.source_content[name]
                )
        if restore.status is not RestoreStatus.DONE:
            assert restore.reason is not None
        if len(self.happened) == 1 and self.happened[0][-1] not in OUTAGES:
            for job_id in self.safety_in_vain:
                assert self.stored(job_id).status is Status.CANCELLED, "a safety backup went on for nobody"
        self._check_removable()
        return restore

    def _check_removable(self) -> None:
        """The backup can be deleted now, and its data goes; that of a safety backup stays."""
        key = self.job.manifest_key
        if self.job.delete_at is None:
            self.delete()
        self.pass_time(timedelta(seconds=DELETE_GRACE_SECONDS))
        if self.job.pins:
            assert OUTAGES & {fault for _, _, fault in self.happened}, (
                f"it is kept for nobody: {self.job.pins}"
            )
            self.clock.advance_to(max(self.job.pins.values()))  # whoever wanted to take it out crashed
        for _ in range(CLEAN_UPS):
            self.clean_up()
            self.pass_time(CLEAN_UP_INTERVAL)
        assert self.job.status is Status.DELETED
        assert not self.storage.versions.get(key)
        assert not any(self.storage.versions.get(self.job.key(name)) for name in self.job.tasks)
        for job in self.jobs.all():
            if job.status is Status.DONE:
                for task in job.tasks.values():
                    assert task.object is not None
                    assert task.object.version_id in self.storage.versions[task.object.key]
