"""Takes a restore from step to step: pins the backup, backs up the site, begins to send, takes the pin out."""

from collections.abc import Callable
from dataclasses import dataclass

from ..backup.recorder import Recorder
from ..domain import lifecycle, restoring
from ..domain.change import Moment
from ..domain.errors import DuplicateJob
from ..domain.job import UNFINISHED, Job, Status
from ..domain.reason import Code, Reason
from ..domain.restore import Restore, RestoreStatus
from ..domain.restoring import RestoreChange, RestoreTransition
from ..domain.transitions import endings
from ..telemetry import logger
from .recorder import RestoreRecorder


@dataclass(frozen=True)
class AdvanceRestore:
    """Each step is safe to repeat, whoever takes it.

    The call that creates the restore does, the event that follows the safety backup's end, and the sweep.
    """

    recorder: RestoreRecorder
    backups: Recorder
    new_id: Callable[[], str]

    def __call__(self, restore_id: str) -> None:
        """As far as it goes now. Raises RepositoryUnavailable or Conflict."""
        restore = self.recorder.restores.get(restore_id)
        for _ in RestoreStatus:  # each step leads to another status, and none leads back
            if restore is None or restore.status is RestoreStatus.RUNNING:
                return
            match restore.status:
                case RestoreStatus.PENDING:
                    restore = self._prepare(restore)
                case RestoreStatus.BACKING_UP:
                    restore = self._watch_safety_backup(restore)
                case _:
                    self._release(restore)
                    return

    def _prepare(self, restore: Restore) -> Restore | None:
        """Pins the backup; then the site is backed up, or the sending begins."""
        if not restore.safety_backup:
            return self._pin_and(restore, restoring.start_sending)
        safety_job_id = self.new_id()
        return self._pin_and(
            restore, lambda restore, moment: restoring.back_up(restore, moment, safety_job_id)
        )

    def _watch_safety_backup(self, restore: Restore) -> Restore | None:
        """Goes on once it is done; None while it is not."""
        assert restore.safety_job_id is not None
        job = self.backups.jobs.get(restore.safety_job_id)
        if job is None:
            self._make_safety_backup(restore, restore.safety_job_id)
            if self._step(restore, restoring.look_again) is None:  # it was cancelled meanwhile
                self.backups.apply(restore.safety_job_id, endings.cancel)
            return None
        if job.status is Status.DONE:
            return self._pin_and(restore, restoring.start_sending)
        if job.status not in UNFINISHED:
            return self._give_up(restore, _safety_failed(job))
        self._step(restore, restoring.look_again)
        return None

    def _make_safety_backup(self, restore: Restore, safety_job_id: str) -> None:
        """Under the claim that the restore has on the site (I10)."""
        moment = self.backups.moment()
        job, events = lifecycle.begin(
            Job(
                id=safety_job_id,
                user_id=restore.user_id,
                site_id=restore.site_id,
                status=Status.PENDING,
                version=1,
                tasks={},
                created_at=moment.now,
                updated_at=moment.now,
                deadline_at=moment.in_seconds(moment.policy.attempt_seconds),
                expires_after_days=moment.policy.safety_backup_days,
                safety_for=restore.ref,
            ),
            moment,
            [name for name, task in restore.tasks.items() if task.status in UNFINISHED],
        )
        try:
            self.backups.create(job, events)
        except DuplicateJob:
            logger.info(
                "the safety backup is there already", extra={"jobId": job.id, "restoreId": restore.id}
            )

    def _pin_and(self, restore: Restore, step: RestoreTransition) -> Restore | None:
        """Pins the backup for all the time that the step and what follows may take, then takes it (I19).

        A pin that came when the restore was over goes again; if the process ends before that, it ends by itself.
        """
        until = restoring.pin_until(restore, self.recorder.moment())
        pinned = self.backups.apply(
            restore.job_id, lambda job, moment: lifecycle.pin(job, moment, restore.pin_owner, until)
        )
        if pinned is None:
            return self._give_up(restore, _GONE)
        taken = self._step(restore, step)
        if taken is None and not self._goes_on(restore):
            self._unpin(restore)
        return taken

    def _goes_on(self, seen: Restore) -> bool:
        """Whether the attempt that was seen does."""
        restore = self.recorder.restores.get(seen.id)
        return restore is not None and restore.is_active and restore.attempt == seen.attempt

    def _unpin(self, restore: Restore) -> None:
        self.backups.apply(
            restore.job_id, lambda job, moment: lifecycle.unpin(job, moment, restore.pin_owner)
        )

    def _give_up(self, restore: Restore, reason: Reason) -> Restore | None:
        return self._step(restore, lambda restore, moment: restoring.give_up(restore, moment, reason))

    def _release(self, restore: Restore) -> None:
        """Takes the pin out, and ends a safety backup that nobody waits for any longer."""
        if not restore.is_pinning:
            return
        if restore.safety_job_id is not None:
            self.backups.apply(restore.safety_job_id, endings.cancel)
        self._unpin(restore)
        self._step(restore, restoring.release)

    def _step(self, seen: Restore, step: RestoreTransition) -> Restore | None:
        """What is stored then. None if somebody else was quicker: nothing that was seen says anything of a retry."""

        def of_this_attempt(restore: Restore, moment: Moment) -> RestoreChange | None:
            return step(restore, moment) if restore.attempt == seen.attempt else None

        return self.recorder.apply(seen.id, of_this_attempt)


_GONE = Reason(code=Code.BACKUP_GONE, message="The data of the backup is being removed, or gone.")


def _safety_failed(job: Job) -> Reason:
    why = job.reason.message if job.reason else f"It is {job.status}."
    message = (
        f"The safety backup {job.id} did not get done: {why} "
        'A restore with "safetyBackup": false goes without one.'
    )
    return Reason(code=Code.SAFETY_BACKUP_FAILED, message=message)
