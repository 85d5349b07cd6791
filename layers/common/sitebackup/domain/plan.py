"""How an export is cut into parts, within S3's limits.

Limits: https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
"""

from typing import NamedTuple

from .model import Model

MIB = 1024 * 1024
MAX_PARTS = 10_000
MIN_PART_SIZE = 5 * MIB  # bytes; of every part but the last
MAX_PART_SIZE = 5 * 1024 * MIB  # bytes
MAX_OBJECT_SIZE = (MAX_PARTS - 1) * MAX_PART_SIZE
"""Bytes. S3 takes one part more, but part 1 has the probe's size, which may be far less than 5 GiB."""

BASE_MEMORY = 160 * MIB  # bytes; of a function that moves parts, before the first of them
PART_MEMORY = 4 * MIB  # bytes; of one part in flight


class PartRange(NamedTuple):
    """One part of a plan: bytes `[start, start + length)` of the export."""

    number: int
    start: int
    length: int

    @property
    def end(self) -> int:
        """First byte after the part."""
        return self.start + self.length


class Plan(Model, frozen=True, kw_only=True):
    """The immutable tiling of an export: part 1 has `first_size` bytes (the probe's), the others `part_size`.

    Both differ only for exports so large that the probe's size would need more than 10,000 parts.
    """

    size: int
    part_size: int
    first_size: int
    validator: str | None = None

    @property
    def parts(self) -> int:
        """How many parts the plan has; 1 even for an empty export."""
        if self.size <= self.first_size:
            return 1
        return 1 + -(-(self.size - self.first_size) // self.part_size)

    def part(self, number: int) -> PartRange:
        """The range of part `number`. Raises ValueError outside 1..parts."""
        if not 1 <= number <= self.parts:
            raise ValueError(f"part {number} is outside 1..{self.parts}")
        start = 0 if number == 1 else self.first_size + (number - 2) * self.part_size
        length = self.first_size if number == 1 else self.part_size
        return PartRange(number, start, min(length, self.size - start))


def plan_parts(size: int, probe_size: int, validator: str | None) -> Plan:
    """Tiles `[0, size)`, keeping the probe, the first request's range of so many bytes, as part 1.

    The settings keep the probe's size within S3's limits.

    Raises ValueError if S3 can't hold the export.
    """
    if not 0 <= size <= MAX_OBJECT_SIZE:
        raise ValueError(f"an object of {size} bytes is outside S3's 0..{MAX_OBJECT_SIZE}")
    part_size = probe_size
    if size > probe_size * MAX_PARTS:
        needed = -(-(size - probe_size) // (MAX_PARTS - 1))
        part_size = -(-needed // MIB) * MIB
    return Plan(size=size, part_size=part_size, first_size=probe_size, validator=validator)


def parts_at_once(memory: int, wanted: int) -> int:
    """How many parts a function with so much memory (bytes) may move at once: `wanted`, or as many as fit.

    A part in flight needs its buffer and two connections, whatever its size. Both constants are measured
    (docs/benchmarks.md), and rounded up.
    """
    return max(1, min(wanted, (memory - BASE_MEMORY) // PART_MEMORY))
