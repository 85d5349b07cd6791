"""The parts of RFC 9110 that an export answers: If-Match, If-Range, Range and Accept-Encoding."""

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)
_ENTITY_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')


@dataclass(frozen=True)
class Range:
    """The bytes start to end, both included, as HTTP counts them."""

    start: int
    end: int

    @property
    def satisfiable(self) -> bool:
        """Whether there are such bytes; if not, the answer is 416 (RFC 9110, 15.5.17)."""
        return self.start <= self.end


def parse_range(value: str, size: int) -> Range | None:
    """The one range that a Range header asks for, cut to the size in bytes.

    None where the header is to be ignored: another unit, a syntax error or several ranges (RFC 9110, 14.2).
    """
    match = _RANGE.fullmatch(value.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return Range(max(0, size - int(last)), size - 1)
    if last and int(last) < int(first):
        return None
    return Range(int(first), min(int(last), size - 1) if last else size - 1)


def if_match_holds(value: str, etag: str | None) -> bool:
    """If-Match by strong comparison: a weak tag matches nothing (RFC 9110, 13.1.1 and 8.8.3.2)."""
    if value.strip() == "*":
        return True
    return etag is not None and ("", etag) in _ENTITY_TAG.findall(value)


def if_range_holds(value: str, etag: str | None, last_modified: str | None) -> bool:
    """If-Range by strong comparison of a tag, or the exact Last-Modified date (RFC 9110, 13.1.5)."""
    strong = etag is not None and not etag.startswith("W/")
    return (strong and value == etag) or (last_modified is not None and value == last_modified)


def accepts_gzip(value: str) -> bool:
    """Whether an Accept-Encoding header takes gzip (RFC 9110, 12.5.3)."""
    weights = {}
    for item in value.split(","):
        coding, _, weight = item.partition(";")
        zero = re.fullmatch(r"\s*q=0(\.0*)?\s*", weight, re.IGNORECASE) is not None
        weights[coding.strip().lower()] = not zero
    return weights.get("gzip", weights.get("*", False))
