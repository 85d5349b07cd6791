"""Opens one stored object in a single pass: every byte for the checksum of the whole, every member for its own.

The pass holds two slices of the object and one of the directory, however large they are, and can end and go on at the
start of any member.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from awscrt import checksums

from ..domain import zip_end
from ..domain.checksum import decode_crc, encode_crc
from ..domain.drill import Drill, DrillState, Place
from ..domain.errors import Permanent
from ..domain.job import StoredObject
from ..domain.plan import MIB
from ..domain.zip_directory import (
    LOCAL_HEADER_BYTES,
    MAX_ENTRY_BYTES,
    Damage,
    Member,
    MemberCheck,
    Unreadable,
    header_length,
    is_signature,
    read_entry,
)
from ..ports.runtime import Clock

SLICE_BYTES = 8 * MIB
"""Held in memory: one that is opened, and the next one that is read meanwhile."""
FED_AT_ONCE = MIB // 4
"""Bytes: the inflater copies what a step leaves of them."""
DIRECTORY_BYTES = MIB
"""Of the directory, read at once."""

type Read = Callable[[int, int], bytes]
"""The bytes of the object from an offset on, so many."""


class Found(NamedTuple):
    """The end of a pass, or of what one invocation does of it."""

    place: Place
    drill: Drill | None
    """None: it goes on from `place`."""


class TimeIsUp(Exception):
    """The pass is to end here, and to go on later."""


@dataclass
class OpenObject:
    """One pass, from `place` on. `keep` is told where the pass could go on, and raises TimeIsUp to end it."""

    stored: StoredObject
    place: Place
    read: Read
    pool: Executor
    keep: Callable[[Place], None]
    clock: Clock
    slice_bytes: int = SLICE_BYTES
    directory_bytes: int = DIRECTORY_BYTES

    def __call__(self) -> Found:
        """Raises what `read` and `keep` raise."""
        began = self.place
        self._bytes = _Bytes(self.stored.size, began, self.read, self.pool, self.slice_bytes, self._look)
        try:
            self._open_members(self._directory())
            self._skip_to(self.stored.size)
            if self._bytes.crc() != self.stored.checksum_crc64nvme:
                raise Damage("Its bytes do not have the checksum that they were stored with.")
        except TimeIsUp:
            return Found(self._where_to_go_on(began), None)
        except Damage as damage:
            drill = self._result(DrillState.DAMAGED, message=str(damage))
            return Found(self.place, drill.replace(member=self._name))
        return Found(self.place, self._result_of_whole())

    def __post_init__(self) -> None:
        self._name: str | None = None
        """Of the member that is being opened."""
        self._next: Place | None = None
        """Where the member that is being opened is passed over."""

    # --- members

    def _directory(self) -> "_Directory":
        """Where a zip's members are. Raises Damage if it has no end record, which it had when it was stored."""
        if self.stored.format == "any" or not self.stored.size:
            return _Directory(zip_end.Directory(0, 0, 0), self.read, self.directory_bytes)
        size = self.stored.size
        length = min(size, zip_end.TAIL_BYTES)
        tail, head = self.read(size - length, length), self.read(0, min(size, zip_end.HEAD_BYTES))
        try:
            found = zip_end.find_directory(size, head, tail)
        except Permanent as error:
            raise Damage(str(error).replace("The export", "What is stored")) from None
        return _Directory(found, self.read, self.directory_bytes)

    def _open_members(self, directory: "_Directory") -> None:
        """All that are left. Raises Damage."""
        try:
            while (member := directory.next(self.place)) is not None:
                self._open(member, directory)
        except Unreadable as error:
            self.place = self._without(directory.end(self.place), None, str(error))

    def _open(self, member: Member, directory: "_Directory") -> None:
        """One member, from where the pass is. Raises Damage."""
        passed = directory.passed(self.place)
        if member.start < self._bytes.offset:
            why = "the members do not stand in the directory's order"
            self.place = self._without(directory.end(self.place), member.name, why)
            return
        self._name = member.name
        if member.start + LOCAL_HEADER_BYTES > directory.start:
            raise Damage("It reaches into the directory.")
        self._skip_to(member.start)
        self._move(self.place)
        self._look()
        if member.unreadable:
            self.place = self._without(passed, member.name, member.unreadable)
        else:
            self._next = self._without(passed, member.name, "opening it takes longer than an invocation has")
            self._inflate(member, directory)
            self._move(passed)
        self._name = self._next = None

    def _inflate(self, member: Member, directory: "_Directory") -> None:
        """The member that the pass is at, against its size and CRC-32. Raises Damage."""
        length = header_length(self._bytes.exactly(LOCAL_HEADER_BYTES))
        if member.start + length + member.stored_size > directory.start:
            raise Damage("It reaches into the directory.")
        self._bytes.skip(length - LOCAL_HEADER_BYTES)
        opened = MemberCheck(member)
        for piece in self._bytes.take(member.stored_size):
            for at in range(0, len(piece), FED_AT_ONCE):
                left = opened.step(piece[at : at + FED_AT_ONCE])
                while left:
                    self._look()
                    left = opened.step(left)
        opened.finish()

    def _without(self, passed: Place, name: str | None, why: str) -> Place:
        """Past a member, or all, that is not opened."""
        first = passed.unread_because is None
        return passed.replace(
            unread=self.place.unread + passed.entry - self.place.entry,
            unread_member=name if first else passed.unread_member,
            unread_because=why if first else passed.unread_because,
        )

    # --- where the pass is

    def _skip_to(self, offset: int) -> None:
        """What lies between members is part of the whole all the same."""
        for _ in self._bytes.take(offset - self._bytes.offset):
            self._move(self.place)

    def _move(self, place: Place) -> None:
        """The pass could go on here. The checksum so far is computed when it is asked for."""
        self.place = place.replace(offset=self._bytes.offset)

    def _look(self) -> None:
        self.keep(self._known())

    def _known(self) -> Place:
        return self.place.replace(crc64nvme=self._bytes.crc_at(self.place.offset))

    def _where_to_go_on(self, began: Place) -> Place:
        """A member that the whole invocation did not come to the end of is passed over."""
        place = self._known()
        if self._next is not None and (place.offset, place.entry) == (began.offset, began.entry):
            return self._next.replace(offset=place.offset, crc64nvme=place.crc64nvme)
        return place

    def _result_of_whole(self) -> Drill:
        if self.place.unread_because is None:
            return self._result(DrillState.OK, compared=True)
        count = self.place.unread
        drill = self._result(
            DrillState.UNREAD,
            message=f"All bytes are those that were stored, but {count} of the members could not be opened: "
            f"{self.place.unread_because}.",
            compared=True,
        )
        return drill.replace(member=self.place.unread_member)

    def _result(self, state: DrillState, *, message: str | None = None, compared: bool = False) -> Drill:
        return Drill(
            state=state,
            at=self.clock.now(),
            members=self.place.entry - self.place.unread,
            message=message,
            compared=compared,
        )


class _Directory:
    """The members, in the order of the directory, of which a slice is held."""

    def __init__(self, found: zip_end.Directory, read: Read, slice_bytes: int) -> None:
        self.start = found.start
        self._found, self._read = found, read
        self._slice_bytes = max(slice_bytes, MAX_ENTRY_BYTES)
        self._held, self._held_at, self._length = memoryview(b""), 0, 0

    def next(self, place: Place) -> Member | None:
        """The one that follows what was passed; None: all were. Raises Damage or Unreadable."""
        left = self._found.length - place.directory_at
        may_be_all = self._members(place.entry) == place.entry
        if not left:
            if not may_be_all:
                raise Damage(f"The directory ends after {place.entry} of {self._found.members} members.")
            return None
        if self._found.is_encrypted:
            raise Unreadable
        at = place.directory_at - self._held_at
        if at < 0 or len(self._held) - at < min(MAX_ENTRY_BYTES, left):
            length = min(self._slice_bytes, left)
            data = self._read(self._found.start + place.directory_at, length)
            self._held, self._held_at, at = memoryview(data), place.directory_at, 0
        if may_be_all:
            if is_signature(self._held[at : at + left]):
                return None
            if not self._found.wraps or left < zip_end.MIN_WRAPPED_BYTES:
                raise Damage(f"The directory has {left} bytes more than those of its {place.entry} members.")
        member, self._length = read_entry(self._held[at:])
        return member

    def _members(self, at_least: int) -> int:
        """So many as the end record says, or more by a multiple of what it can't count."""
        found = self._found
        if not found.wraps or found.members >= at_least:
            return found.members
        return at_least + (found.members - at_least) % zip_end.WRAPS_AT

    def passed(self, place: Place) -> Place:
        """Past the member that `next` gave."""
        return place.replace(entry=place.entry + 1, directory_at=place.directory_at + self._length)

    def end(self, place: Place) -> Place:
        """Past all members."""
        return place.replace(entry=self._members(place.entry + 1), directory_at=self._found.length)


@dataclass
class _Bytes:
    """The object's bytes from a place on: the next slice is read while one is worked on."""

    size: int
    place: Place
    read: Read
    pool: Executor
    slice_bytes: int
    on_slice: Callable[[], None]
    """Told of each slice that comes."""
    held: memoryview = field(default=memoryview(b""), init=False)

    def __post_init__(self) -> None:
        self.offset = self._held_at = self.place.offset
        self._hashed_to, self._crc = self.place.offset, decode_crc(self.place.crc64nvme)
        self._known = {self._hashed_to: self._crc}
        self._following: Future[bytes] | None = None

    def take(self, length: int) -> Iterator[memoryview]:
        """The next bytes in pieces. Raises Damage if the object has fewer, and what `read` raises."""
        while length > 0:
            at = self.offset - self._held_at
            if at == len(self.held):
                self._next_slice()
                at = 0
            piece = self.held[at : at + length]
            self.offset += len(piece)
            length -= len(piece)
            yield piece

    def exactly(self, length: int) -> bytes:
        """The next few bytes as one."""
        return b"".join(self.take(length))

    def skip(self, length: int) -> None:
        """Past so many bytes."""
        for _ in self.take(length):
            pass

    def crc(self) -> str:
        """Of all bytes before the offset."""
        return self.crc_at(self.offset)

    def crc_at(self, offset: int) -> str:
        """Of all bytes before an offset that was asked for before, or is in the slice that is held."""
        if offset not in self._known:
            self._hash_to(offset)
            self._known = {offset: self._crc}
        return encode_crc(self._known[offset])

    def _hash_to(self, offset: int) -> None:
        at = self._hashed_to - self._held_at
        piece = self.held[at : offset - self._held_at]
        self._crc = checksums.crc64nvme(cast(bytes, piece), self._crc)
        self._hashed_to = offset

    def _next_slice(self) -> None:
        if self._held_at + len(self.held) > self._hashed_to:
            self._hash_to(self._held_at + len(self.held))
        self._held_at += len(self.held)
        if self._held_at >= self.size:
            raise Damage("It is shorter than it was when it was stored.")
        following = self._following or self._submit(self._held_at)
        self.held = memoryview(b"")
        data = following.result()
        after = self._held_at + len(data)
        self._following = self._submit(after) if after < self.size else None
        self.held = memoryview(data)
        self.on_slice()

    def _submit(self, start: int) -> Future[bytes]:
        return self.pool.submit(self.read, start, min(self.slice_bytes, self.size - start))
