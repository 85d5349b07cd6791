"""What people ask of a restore: cancel, retry."""

from dataclasses import dataclass

from ..backup.create_job import site_claimed
from ..backup.get_job import visible
from ..domain import restoring
from ..domain.change import Moment
from ..domain.errors import Conflict, DuplicateJob, StateForbids, TooLate, Unavailable
from ..domain.principal import Access
from ..domain.restore import Restore
from ..domain.restoring import RestoreChange, RestoreTransition
from ..telemetry import logger
from .advance_restore import AdvanceRestore
from .recorder import RestoreRecorder


@dataclass(frozen=True)
class ChangeRestore:
    """Each call raises NotFound, StateForbids, RepositoryUnavailable or Conflict."""

    recorder: RestoreRecorder
    advance: AdvanceRestore

    def cancel(self, access: Access, restore_id: str) -> Restore:
        """Stops every task whose provider has not got all bytes. Raises TooLate if there is none."""
        return self._change(
            visible(self.recorder.restores, access, "restore", restore_id), "cancelled", restoring.cancel
        )

    def retry(self, access: Access, restore_id: str) -> Restore:
        """Opens the next attempt, once what the one before held is released.

        Raises ActiveJob as well if something else is active on the site.
        """
        restore = visible(self.recorder.restores, access, "restore", restore_id)
        self.advance(restore_id)
        try:
            return self._change(restore, "retried", restoring.retry)
        except DuplicateJob:
            claim = self.recorder.restores.claim_of(restore.user_id, restore.site_id)
            raise site_claimed(claim, access, restore.user_id) from None

    def _change(self, known: Restore, what: str, transition: RestoreTransition) -> Restore:
        restore_id, seen = known.id, [known]

        def decide(restore: Restore, moment: Moment) -> RestoreChange | None:
            seen.append(restore)
            return transition(restore, moment)

        changed = self.recorder.apply(restore_id, decide)
        if changed is None:
            if what == "cancelled" and seen[-1].is_active:
                raise TooLate(
                    "The last bytes are at the providers, or on their way; nothing can be stopped.",
                    restoreId=restore_id,
                )
            status = seen[-1].status.replace("_", " ")
            raise StateForbids(f"Restore {restore_id} can't be {what}: it is {status}.", restoreId=restore_id)
        logger.info(f"restore {what}", extra={"restoreId": restore_id, "attempt": changed.attempt})
        try:
            self.advance(restore_id)
        except (Unavailable, Conflict) as error:
            extra = {"restoreId": restore_id, "error": str(error)}
            logger.warning("the restore's next step is left to the sweep", extra=extra)
        return self.recorder.restores.get(restore_id) or changed
