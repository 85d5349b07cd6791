"""What is known of parts, in memory, as the contract suite of the PartRepository asks for it."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sitebackup.domain.job import Part, PartWait
from tests.fakes.faults import Fake, FaultInjector, no_faults, port_call


class MemoryParts(Fake):
    """Documents by (uploadId, number). Only a part that is done has an ETag."""

    port = "parts"

    def __init__(self, faults: FaultInjector = no_faults) -> None:
        super().__init__(faults)
        self._documents: dict[tuple[str, int], dict[str, Any]] = {}

    def waits(self, upload_id: str) -> dict[int, PartWait]:
        """What is stored of parts that are not done, by number; no call of the port."""
        return {
            number: PartWait.from_document(document)
            for (upload, number), document in self._documents.items()
            if upload == upload_id and not _is_done(document)
        }

    @port_call
    def save(self, upload_id: str, part: Part, now: datetime) -> None:
        self._documents[upload_id, part.number] = part.to_document()

    @port_call
    def save_wait(self, upload_id: str, number: int, wait: PartWait, now: datetime) -> None:
        if not self._is_done(upload_id, number):
            self._documents[upload_id, number] = wait.to_document()

    @port_call
    def end_waits(self, upload_id: str, numbers: Collection[int]) -> None:
        for number in numbers:
            if not self._is_done(upload_id, number):
                self._documents.get((upload_id, number), {}).pop("nextTryAt", None)

    @port_call
    def lose(self, upload_id: str, number: int, wait: PartWait, now: datetime) -> None:
        self._documents[upload_id, number] = wait.to_document()

    @port_call
    def done(self, upload_id: str, numbers: range | None = None) -> list[Part]:
        return [
            Part.from_document(document)
            for (upload, number), document in sorted(self._documents.items(), key=lambda item: item[0])
            if upload == upload_id and (numbers is None or number in numbers) and _is_done(document)
        ]

    @port_call
    def missing(self, upload_id: str, numbers: range) -> dict[int, PartWait]:
        return {
            number: PartWait.from_document(self._documents.get((upload_id, number), {}))
            for number in numbers
            if not self._is_done(upload_id, number)
        }

    @port_call
    def which_done(self, parts: Collection[tuple[str, int]]) -> set[tuple[str, int]]:
        return {part for part in parts if self._is_done(*part)}

    def _is_done(self, upload_id: str, number: int) -> bool:
        return _is_done(self._documents.get((upload_id, number), {}))


def _is_done(document: dict[str, Any]) -> bool:
    return "etag" in document
