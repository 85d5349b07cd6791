"""The export and import APIs of the providers."""

from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Literal, NamedTuple, Protocol, Self

from ..domain.provider import Provider
from .runtime import Reader, TimeLeft, no_deadline


class Export(Reader, Protocol):
    """An open export, or a range of one: to be read once, and closed."""

    size: int | None
    """Bytes of the whole export; None if only the end of the stream tells."""
    length: int | None
    """Bytes of this body; None likewise."""
    validator: str | None
    """A strong ETag if the export can be read by ranges, else None."""
    end_proven: bool
    """Whether 0 from `readinto` proves that the body is whole (I14).

    False if the body ends with its connection, as one that was cut does: then only a look into what was stored, a zip
    that ends right, proves it.
    """

    @property
    def ranged(self) -> bool:
        """Whether other ranges of the same export can be asked for."""

    def readinto(self, buffer: memoryview) -> int:
        """As Reader. Raises Transient if the end comes too early, Permanent if more follows than was framed."""

    def close(self) -> None:
        """Gives up what was not read."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ExportApi(Protocol):
    """The providers' export APIs. The adapter repeats nothing but a request whose token was refused, once."""

    def probe(
        self,
        provider: Provider,
        user_id: str,
        site_id: str,
        length: int | None,
        time_left: TimeLeft = no_deadline,
    ) -> Export:
        """The first request: asks for the first `length` bytes (None: for all), and tells what the export is.

        Raises Transient or Permanent. Neither it nor a read of the export waits longer than the time that is left.
        """

    def open_range(
        self,
        provider: Provider,
        user_id: str,
        site_id: str,
        start: int,
        length: int,
        validator: str,
        size: int,
        time_left: TimeLeft = no_deadline,
    ) -> Export:
        """Bytes `[start, start + length)` of the export that has this validator and size; waits as `probe` does.

        Raises ExportChanged if it has others by now, Transient or Permanent.
        """


class ImportTarget(NamedTuple):
    """What an upload to an import API is for; the provider is told all of it."""

    user_id: str
    site_id: str
    """Of the site that is restored, which need not be the one that was backed up."""
    job_id: str
    """The backup that is given back."""
    restore_id: str
    """An import is carried out once for each (restoreId, provider): that is the contract with providers."""
    crc64nvme: str
    """Of the whole, base64 of the big-endian CRC."""


class ImportOffer(NamedTuple):
    """What an import API says of itself."""

    max_size: int | None
    """Bytes that one upload may have; None: it does not say."""


class ImportOutcome(NamedTuple):
    """What became of an import whose bytes are all there."""

    state: Literal["done", "failed", "processing"]
    message: str | None = None
    """What the provider says of it, cut to a length that can be shown."""
    retry_after: timedelta | None = None
    """When it asks to be asked again."""


class ImportApi(Protocol):
    """The providers' import APIs: tus 1.0.0, core and creation.

    https://tus.io/protocols/resumable-upload

    Every call may raise Transient (a broken connection, 408, 423, 425, 429, 5xx, with what `Retry-After` asked for)
    or Permanent (`import_forbidden`, `import_refused`, `import_invalid`, `import_address_refused`). After a Transient
    the outcome is unknown: `offset` tells what has arrived. Redirects are not followed. The adapter repeats nothing
    but a request whose token was refused, once.
    """

    def offer(
        self, provider: Provider, user_id: str, site_id: str, time_left: TimeLeft = no_deadline
    ) -> ImportOffer:
        """What a dry run asks. Raises Permanent `import_not_found` as well."""

    def create(
        self, provider: Provider, target: ImportTarget, size: int, time_left: TimeLeft = no_deadline
    ) -> str:
        """The URL of a new upload of `size` bytes. Each call makes one: after a lost answer one is left there.

        The URL is secret like a token (it may be all that is needed to write): it stands in no log and no view.
        Raises Permanent `import_not_found` or `import_too_large` as well. An upload of 0 bytes is whole at once.
        """

    def offset(self, provider: Provider, url: str, time_left: TimeLeft = no_deadline) -> int:
        """How many bytes have arrived. Raises NoSuchImport."""

    def send(
        self,
        provider: Provider,
        url: str,
        offset: int,
        data: memoryview,
        time_left: TimeLeft = no_deadline,
        goes_on: Callable[[], bool] = lambda: True,
    ) -> int:
        """Sends `data`, which stands at `offset`, and returns how many bytes have arrived by now.

        It carries a checksum of `data` if the API offers to compare one. While it sends, and waits for the answer,
        it asks every second whether it `goes_on`; if not it breaks the connection off and raises TaskEnded. Raises
        NoSuchImport; Transient also for an offset (409) or a checksum (460) that is refused.
        """

    def outcome(self, provider: Provider, url: str, time_left: TimeLeft = no_deadline) -> ImportOutcome:
        """For a provider with `importStatus`. Raises NoSuchImport."""

    def delete(self, provider: Provider, url: str, time_left: TimeLeft = no_deadline) -> None:
        """Ends an upload that nobody goes on with. One that is gone, or an API that has no such call, is no error."""
