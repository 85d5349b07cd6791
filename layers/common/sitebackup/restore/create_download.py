"""Gives a link to one object of a backup, which stays there for as long as the link is valid."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from ..backup.get_job import visible
from ..backup.recorder import JobStore
from ..domain import lifecycle
from ..domain.download import OWNER, Download, downloadable, file_name, refusal
from ..domain.model import Model, ProviderName
from ..domain.principal import Access
from ..ports.storage import DownloadLinks
from ..telemetry import count, log_context, logger


class DownloadRequest(Model, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /backup/{jobId}/download`. An error about a field quotes its description."""

    provider: ProviderName


@dataclass(frozen=True)
class CreateDownload:
    """The pin first, then the link: no valid link leads to data that is being removed (I19)."""

    store: JobStore
    links: DownloadLinks
    valid_for: timedelta

    def __call__(
        self, access: Access, job_id: str, provider: str, *, allow_damaged: bool = False
    ) -> Download:
        """Raises NotFound, StateForbids, Conflict, or Unavailable (MongoDB, or what is needed to sign)."""
        job = visible(self.store.jobs, access, "backup", job_id)
        moment = self.store.moment()
        now, policy = moment
        stored = downloadable(job, provider, now, policy, allow_damaged=allow_damaged)
        until = now + self.valid_for
        pin = partial(lifecycle.pin, owner=OWNER, until=_pin_end(until))
        if not self.store.apply(job_id, pin, known=job):
            raise refusal(job, "its data is being removed")
        name = file_name(job, provider, stored)
        link = self.links.link(stored, name, until)
        count("DownloadLinks")
        extra = {**log_context(job.ref(provider)), "expiresAt": link.expires_at.isoformat()}
        logger.info("download link given", extra=extra)
        return Download(link, name, stored)


def _pin_end(until: datetime) -> datetime:
    """One to two minutes later, as clocks differ; a whole minute, so that the links of one minute cost one write."""
    return (until + timedelta(minutes=2)).replace(second=0, microsecond=0)
