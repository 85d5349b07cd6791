"""Reads backups and restores; can wait for a change instead of being polled."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..domain.errors import NotFound
from ..domain.job import Job
from ..domain.principal import Access
from ..domain.restore import Restore
from ..ports.repositories import VisibleDocuments
from ..ports.runtime import Clock

POLL_SECONDS = 0.5
"""Each look costs one read of one field by `_id`."""
MAX_WAIT_SECONDS = 25
"""HTTP APIs cut a request at 30 s."""


def visible[D: (Job, Restore)](
    documents: VisibleDocuments[D], access: Access, kind: str, document_id: str
) -> D:
    """The backup or restore of this id, which a caller asks for. Raises NotFound, also for what is out of reach."""
    found = documents.get_for(access, document_id)
    if found is None:
        raise NotFound(f"There is no {kind} {document_id}.")
    return found


@dataclass(frozen=True)
class GetDocument[D: (Job, Restore)]:
    """One, or a page of them."""

    documents: VisibleDocuments[D]
    kind: str
    clock: Clock

    def __call__(self, access: Access, document_id: str, wait: int = 0, since: int | None = None) -> D:
        """The one of this id, as soon as its version is past `since` or `wait` seconds are over.

        Raises NotFound or RepositoryUnavailable.
        """
        end = self.clock.monotonic() + min(wait, MAX_WAIT_SECONDS)
        if since is not None:
            while self.clock.monotonic() < end:
                version = self.documents.version_for(access, document_id)
                if version is None or version > since:
                    break
                self.clock.sleep(min(POLL_SECONDS, max(end - self.clock.monotonic(), 0)))
        return visible(self.documents, access, self.kind, document_id)

    def page(
        self, access: Access, filters: Mapping[str, str | None], limit: int, before: str | None
    ) -> tuple[list[D], str | None]:
        """Newest first, and the cursor of the next page; a filter that is None does not count.

        Raises NotYourUser or RepositoryUnavailable.
        """
        filters = {**filters, "userId": access.any_user(filters.get("userId"))}
        asked = {name: value for name, value in filters.items() if value is not None}
        found = self.documents.page_for(access, asked, limit + 1, before)
        return found[:limit], found[limit - 1].id if len(found) > limit else None
