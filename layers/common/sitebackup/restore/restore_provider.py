"""Gives one provider its object back: from S3 to the import API, slice by slice, as far as one invocation comes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..domain import restoring
from ..domain.backoff import pause
from ..domain.checksum import CRC_OF_NOTHING
from ..domain.errors import NoSuchImport, Permanent, TaskEnded, Transient
from ..domain.events import RestoreTaskCreated
from ..domain.job import Status, StoredObject
from ..domain.plan import MIB
from ..domain.provider import Provider
from ..domain.reason import Code, Reason
from ..domain.restore import Import
from ..domain.restoring import Arrived
from ..domain.task_ref import RestoreTaskRef
from ..domain.transitions.postponing import Postponed
from ..ports.providers import ImportApi, ImportTarget
from ..ports.runtime import Clock, Pool, TimeLeft
from ..ports.storage import ObjectStorage
from ..telemetry import count, log_context, logger
from ..transfer.checksums import extend_crc
from ..transfer.retrying import RetryInProcess
from .advance_restore import AdvanceRestore
from .recorder import RestoreRecorder
from .restore_lease import RestoreLease

SLICE_BYTES = 8 * MIB
"""Held in memory: one that is sent, and the next one that is read meanwhile."""
ASK_PAUSES = (1.0, 2.0, 4.0)
"""Seconds between the first questions of what became of an import; the sweep asks the later ones."""
PAUSE_AFTER_BREAK = 1.0
"""Seconds before the rest of a slice that broke is sent: until then the provider has seen the break as well."""
STOPS_BEFORE_DEADLINE = timedelta(seconds=30)
"""No slice is begun later than that before the end of an invocation."""


@dataclass(frozen=True)
class RestoreProvider:
    """One record: a task of a restore is to be begun, gone on with, or its restore taken a step further."""

    recorder: RestoreRecorder
    advance: AdvanceRestore
    imports: ImportApi
    storage: ObjectStorage
    providers: Mapping[str, Provider]
    retry: RetryInProcess
    clock: Clock
    pool: Pool
    random: Callable[[], float]
    """Uniform in [0, 1)."""
    slice_bytes: int = SLICE_BYTES

    def __call__(self, event: RestoreTaskCreated, owner: str, deadline: datetime) -> None:
        """Stores an outcome for whatever happens; `owner` names this invocation.

        Raises RepositoryUnavailable (or Conflict) if no outcome can be stored.
        """
        ref = event.task
        self.recorder.apply(ref.restore_id, restoring.time_out)
        self.advance(ref.restore_id)
        started = self.recorder.apply_to_task(ref, restoring.start_task, event.redelivery, owner)
        if started is None:
            return
        lease = RestoreLease(self.recorder, ref, owner, started)
        try:
            self.retry(lambda: self._give_back(lease, deadline), ref, deadline)
        except TaskEnded:
            logger.info("another invocation has the task, or it has ended", extra=log_context(ref))
        except Permanent as error:
            self._fail(lease, error.reason)
        except Transient as error:
            self._postpone(lease, error, event.redelivery)
        self.advance(ref.restore_id)

    def _give_back(self, lease: RestoreLease, deadline: datetime) -> None:
        provider = self._provider(lease.ref)
        left = lease.time_left(self.clock.left_until(deadline))
        upload = lease.task.upload
        if upload is None:
            upload, arrived = self._begin(lease, provider, left), Arrived(0, CRC_OF_NOTHING)
        else:
            arrived = self._find(lease, provider, upload, left)
        try:
            whole = self._send(lease, provider, upload, arrived, deadline)
        except NoSuchImport:
            raise Transient("The provider does not know the upload.") from None
        if whole:
            self._settle(lease, provider, upload, left)
        else:
            self.recorder.apply_to_task(lease.ref, restoring.hand_over, lease.owner)

    def _provider(self, ref: RestoreTaskRef) -> Provider:
        """Raises Permanent if it is no longer one that can take data back."""
        provider = self.providers.get(ref.provider)
        if provider is None or provider.import_url is None:
            message = f"No provider {ref.provider} with an import API is configured."
            raise Permanent(Code.PROVIDER_UNKNOWN, message)
        return provider

    # --- the upload

    def _begin(self, lease: RestoreLease, provider: Provider, left: TimeLeft) -> Import:
        """A new upload; one whose URL could not be stored is left there, empty."""
        restore, stored = lease.restore, lease.task.object
        target = ImportTarget(
            user_id=restore.user_id,
            site_id=restore.site_id,
            job_id=restore.job_id,
            restore_id=restore.id,
            crc64nvme=stored.checksum_crc64nvme,
        )
        lease.begin_import(self.imports.create(provider, target, stored.size, left))
        assert lease.task.upload is not None
        return lease.task.upload

    def _find(self, lease: RestoreLease, provider: Provider, upload: Import, left: TimeLeft) -> Arrived:
        """What the provider has of it. Raises Transient if it has lost it: then a new upload is begun.

        What has arrived since it was stored is read from S3 again, for its checksum. Raises Permanent if the provider
        says what can't be.
        """
        try:
            offset = self.imports.offset(provider, upload.url, left)
        except NoSuchImport:
            if not lease.task.is_committed:
                raise self._lost(lease) from None
            if provider.import_status:
                return Arrived(lease.task.object.size, lease.task.object.checksum_crc64nvme)
            raise _unknown() from None
        if offset > upload.sent_to:
            message = f"The provider has {offset} bytes of an upload of which {upload.sent_to} were sent."
            raise Permanent(Code.IMPORT_INVALID, message)
        if offset < upload.offset:
            self._delete(lease, provider, upload)
            raise self._lost(lease)
        crc, at = upload.crc64nvme, upload.offset
        while at < offset:
            data = self._read(lease.task.object, at, min(self.slice_bytes, offset - at))
            crc, at = extend_crc(crc, data), at + len(data)
        return Arrived(offset, crc)

    def _lost(self, lease: RestoreLease) -> Transient:
        """A new upload is to be begun."""
        count("ImportsLost")
        logger.warning("the provider lost the upload", extra=log_context(lease.ref))
        lease.lose_import()
        return Transient("The provider lost the upload.")

    def _delete(self, lease: RestoreLease, provider: Provider, upload: Import) -> None:
        """Of no use any longer; if the provider does not answer it is left there, and can never be whole."""
        try:
            self.imports.delete(provider, upload.url, lease.time_left(lambda: 10.0))
        except (Transient, Permanent) as error:
            logger.warning("upload left behind", extra={**log_context(lease.ref), "error": str(error)})

    # --- its bytes

    def _send(
        self, lease: RestoreLease, provider: Provider, upload: Import, arrived: Arrived, deadline: datetime
    ) -> bool:
        """Whether all bytes have arrived; if not, the time of the invocation is up."""
        stored = lease.task.object
        ends_at = min(deadline - STOPS_BEFORE_DEADLINE, lease.restore.deadline_at or deadline)
        with self.pool(1) as pool:
            following = pool.submit(self._read, stored, arrived.offset, self.slice_bytes)
            while arrived.offset < stored.size:
                if self.clock.now() >= ends_at:
                    return False
                data = memoryview(following.result())
                if not data:
                    raise Transient("S3 gives less of the object than it has.")
                end = arrived.offset + len(data)
                following = pool.submit(self._read, stored, end, self.slice_bytes)
                if end == stored.size and extend_crc(arrived.crc64nvme, data) != stored.checksum_crc64nvme:
                    raise Permanent(Code.BACKUP_DAMAGED, _DAMAGED)
                while arrived.offset < end:
                    at = arrived.offset - end + len(data)
                    offset = self._send_slice(lease, provider, upload, arrived, data[at:], deadline)
                    crc = extend_crc(arrived.crc64nvme, data[at : at + offset - arrived.offset])
                    arrived = Arrived(offset, crc)
                    if self.clock.now() >= ends_at and arrived.offset < end:
                        break
        return arrived.offset == stored.size

    def _send_slice(
        self,
        lease: RestoreLease,
        provider: Provider,
        upload: Import,
        arrived: Arrived,
        data: memoryview,
        deadline: datetime,
    ) -> int:
        """How far the provider is then. A break that has moved it on is none: the rest is sent soon.

        Raises NoSuchImport if the provider may have had all bytes, else Transient if it has lost the upload.
        """
        left, offset = lease.time_left(self.clock.left_until(deadline)), arrived.offset
        may_be_whole = lease.task.is_committed
        lease.begin_slice(arrived, sent_to=offset + len(data))
        try:
            reached = self.imports.send(provider, upload.url, offset, data, left, lease.goes_on)
        except NoSuchImport:
            if may_be_whole:
                raise
            raise self._lost(lease) from None  # it did not take this slice, which may be the last one
        except Transient as error:
            if error.retry_after is not None:
                raise
            self.clock.sleep(PAUSE_AFTER_BREAK)
            lease.renew()
            reached = self.imports.offset(provider, upload.url, left)
            if not offset < reached <= offset + len(data):
                raise error from None
            logger.warning("slice goes on", extra={**log_context(lease.ref), "error": str(error)})
        if not offset < reached <= offset + len(data):
            message = f"The provider has {reached} bytes after {offset + len(data)} were sent."
            raise Permanent(Code.IMPORT_INVALID, message)
        return reached

    def _read(self, stored: StoredObject, start: int, length: int) -> bytes:
        """Of this very version, up to its end."""
        length = min(length, stored.size - start)
        return self.storage.read(stored, start, length) if length > 0 else b""

    # --- its end

    def _settle(self, lease: RestoreLease, provider: Provider, upload: Import, left: TimeLeft) -> None:
        """All bytes are there: whole is imported, unless the provider tells what became of them."""
        if not provider.import_status:
            self._finish(lease)
            return
        for seconds in (*ASK_PAUSES, None):
            try:
                outcome = self.imports.outcome(provider, upload.url, left)
            except NoSuchImport:
                raise _unknown() from None
            if outcome.state == "done":
                self._finish(lease)
                return
            if outcome.state == "failed":
                said = f" It says: {outcome.message}" if outcome.message else ""
                raise Permanent(Code.IMPORT_FAILED, f"The import failed at the provider.{said}")
            if seconds is None or outcome.retry_after or left() <= seconds:
                break
            self.clock.sleep(seconds)
            lease.renew()
        wait = outcome.retry_after or pause(len(ASK_PAUSES), self.random())
        ask_at = self.clock.now() + wait
        self.recorder.apply_to_task(lease.ref, restoring.await_import, lease.owner, ask_at)

    def _finish(self, lease: RestoreLease) -> None:
        if self.recorder.apply_to_task(lease.ref, restoring.finish_task, lease.owner) is None:
            raise TaskEnded

    def _fail(self, lease: RestoreLease, reason: Reason) -> None:
        """What can't become a whole import is taken away from the provider."""
        failed = self.recorder.apply_to_task(lease.ref, restoring.fail_task, lease.owner, reason)
        task = failed.tasks[lease.ref.provider] if failed else None
        provider = self.providers.get(lease.ref.provider)
        if task is None or task.upload is None or provider is None or task.status is not Status.FAILED:
            return
        if reason.code not in restoring.GOES_ON and not task.is_committed:
            self._delete(lease, provider, task.upload)

    def _postpone(self, lease: RestoreLease, error: Transient, tries: int) -> None:
        wait = error.retry_after or pause(tries, self.random())
        count("TransientErrors")
        context = {**log_context(lease.ref), "error": str(error), "seconds": wait.total_seconds()}
        logger.warning("task waits", extra=context)
        postponed = Postponed(str(error), self.clock.now() + wait)
        self.recorder.apply_to_task(lease.ref, restoring.postpone, lease.owner, postponed)


_DAMAGED = "What is stored has not the checksum of the manifest; the last of its bytes were not sent."


def _unknown() -> Permanent:
    message = (
        "All bytes were sent; the provider no longer knows the upload, and what became of it is not known."
    )
    return Permanent(Code.IMPORT_UNKNOWN, message)
