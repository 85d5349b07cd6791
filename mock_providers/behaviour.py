"""What an export and an import do: size, revision and the faults they show. The JSON of the control API.

A fault that may end has `times`: how often it still happens. Without it the fault stays. A flag is `true` or
`{"times": n}`. Positions and sizes are bytes of the response's body, times are seconds.
"""

from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from mock_providers.archive import LARGEST

Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0, le=3600)]
HeaderValue = Annotated[str, Meta(min_length=1, max_length=2000, pattern=r"\A[!-~]([ -~]*[!-~])?\Z")]


class Fault(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Something that goes wrong with the next `times` requests, or with all where `times` is left out."""

    times: Count | None = None

    def take(self) -> bool:
        """Whether it happens this time; counts down."""
        if self.times == 0:
            return False
        if self.times is not None:
            self.times -= 1
        return True


Flag = bool | Fault


class AtByte(Fault):
    """A fault that begins behind so many bytes of the body."""

    bytes: Count


class Hang(Fault):
    """Behind so many bytes of the body nothing comes for so many seconds."""

    after_bytes: Count
    seconds: Seconds


class SlowFirstByte(Fault):
    """At first nothing comes for so many seconds."""

    seconds: Seconds


class Status(Fault):
    """The answer is this error, with this `Retry-After` if there is one."""

    code: Annotated[int, Meta(ge=400, le=599)]
    retry_after: Count | HeaderValue | None = None


class StatusOnRange(Status, kw_only=True):
    """The error answers a range that begins at byte `from` or behind it."""

    start: Count = msgspec.field(name="from")


class Redirect(Fault):
    """The answer is a redirect to `location`, or to the very URL that was asked for."""

    code: Literal[301, 302, 303, 307, 308] = 302
    location: HeaderValue | None = None


class Drip(Fault):
    """The body comes at this speed."""

    bytes_per_second: Annotated[int, Meta(ge=1)]


class LongBody(Fault):
    """The body is longer by so many bytes."""

    bytes: Annotated[int, Meta(ge=1, le=1 << 30)]


class Faults(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """All that can go wrong with an export."""

    # before the export is looked at
    status: Status | None = None
    status_on_range: StatusOnRange | None = None
    redirect: Redirect | None = None
    slow_first_byte: SlowFirstByte | None = None
    # the head of the response
    no_range: Flag = False
    no_length: Flag = False
    weak_etag: Flag = False
    no_etag: Flag = False
    last_modified_only: Flag = False
    change_etag: Flag = False
    change_etag_after: Count | None = None
    change_content_after: Count | None = None
    wrong_range: Flag = False
    gzip: Literal["always", "ifAsked"] | None = None
    # its body
    wrong_body: Flag = False
    long_body: LongBody | None = None
    truncate_at: AtByte | None = None
    truncate_chunked: AtByte | None = None
    reset: AtByte | None = None
    hang: Hang | None = None
    drip: Drip | None = None


Method = Literal["OPTIONS", "POST", "HEAD", "PATCH", "GET", "DELETE"]
Extension = Literal["creation", "checksum", "termination"]


class FromByte(Fault, kw_only=True):
    """A fault that shows once the upload holds `from` bytes."""

    start: Count = msgspec.field(name="from", default=0)


class Refusal(FromByte, kw_only=True):
    """The answer is this status; with `close` the connection ends behind it, and the request's body is unread."""

    code: Annotated[int, Meta(ge=400, le=599)]
    retry_after: Count | HeaderValue | None = None
    close: bool = False


class SlowAnswer(FromByte, kw_only=True):
    """The answer comes so many seconds after the request was carried out."""

    seconds: Seconds


class WrongOffset(FromByte, kw_only=True):
    """The answer's Upload-Offset is wrong by so many bytes."""

    by: int


class WrongLocation(Fault):
    """The upload is there, but the answer says that it is here."""

    location: HeaderValue


class Forget(FromByte, kw_only=True):
    """The upload is unknown from the next request on, which is answered so."""

    code: Literal[404, 410] = 404


class LoseBytes(FromByte, kw_only=True):
    """The upload falls back by so many bytes before the next request is looked at."""

    bytes: Annotated[int, Meta(ge=1)]


class FailedImport(Fault):
    """All bytes are there, and the import fails for this reason."""

    message: str = "the provider could not import the archive"


class ImportBehaviour(
    msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True
):
    """What the import API of one site offers, and all that can go wrong with it.

    Positions are bytes of the upload, however many requests they came in.
    """

    max_size: Count | None = None
    extensions: tuple[Extension, ...] = get_args(Extension)
    import_seconds: Seconds = 0
    # before the request is carried out
    refuse: dict[Method, Refusal] = {}
    forget: Forget | None = None
    lose_bytes: LoseBytes | None = None
    # while the bytes come
    drip: Drip | None = None
    hang: Hang | None = None
    cut_at: AtByte | None = None
    # when all are there
    import_fails: FailedImport | None = None
    # the answer
    relative_location: Flag = False
    wrong_location: WrongLocation | None = None
    wrong_offset: dict[Method, WrongOffset] = {}
    slow_answer: dict[Method, SlowAnswer] = {}
    lose_answer: dict[Method, FromByte] = {}


class Behaviour(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """What the export and the import of one site are like: `size` is in bytes."""

    size: Annotated[int, Meta(ge=0, le=LARGEST)]
    revision: Count = 1
    require_token: HeaderValue | None = None
    faults: Faults = msgspec.field(default_factory=Faults)
    imports: ImportBehaviour = msgspec.field(default_factory=ImportBehaviour)


def happens(fault: Flag | Fault | None) -> bool:
    """Whether a flag or a fault happens this time; counts down."""
    return fault.take() if isinstance(fault, Fault) else bool(fault)
