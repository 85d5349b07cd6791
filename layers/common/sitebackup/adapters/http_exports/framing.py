"""What the head of an answer says of its body.

Ranges and validators follow RFC 9110 (sections 13 and 14): only a strong ETag may join ranges of one export.
"""

import re

import requests
import urllib3
from urllib3.exceptions import HeaderParsingError
from urllib3.util.response import assert_header_parsing

from ...domain.errors import Permanent
from ...domain.provider import Provider
from ...domain.reason import Code
from ..http_body import http_answer
from ..provider_http import MAX_REASON

_CONTENT_LENGTH = re.compile(r"\d{1,18}", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)


def framing_of(response: requests.Response, provider: Provider) -> tuple[int | None, bool]:
    """(Content-Length if it frames the body, whether the body's end can be seen), by RFC 9112, section 6.3.

    Raises Permanent if that can be read in two ways, or differs from how http.client reads it.
    """
    raw: urllib3.HTTPResponse = response.raw
    parsed = http_answer(raw)
    try:
        assert_header_parsing(parsed.msg)
    except HeaderParsingError as error:  # those behind the broken one are lost
        raise invalid(provider, "a header that can't be read") from error
    codings, lengths = raw.headers.getlist("Transfer-Encoding"), raw.headers.getlist("Content-Length")
    if codings:
        if len(codings) > 1 or not parsed.chunked or raw.version != 11:
            raise invalid(provider, f"Transfer-Encoding {', '.join(codings)}")
        return None, True
    if not lengths:
        return None, False
    if len(lengths) > 1 or not _CONTENT_LENGTH.fullmatch(lengths[0]):
        raise invalid(provider, f"Content-Length {', '.join(lengths)}")
    return int(lengths[0]), True


def strong_etag(response: requests.Response) -> str | None:
    """The ETag, if ranges may be joined by it; None for a weak one."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') and etag.endswith('"') and len(etag) > 2 else None


def content_range(response: requests.Response, provider: Provider) -> tuple[int, int, int]:
    """(start, end past the last byte, size)."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if not match:
        raise invalid(provider, f"206 with Content-Range {response.headers.get('Content-Range')!r}")
    return int(match[1]), int(match[2]) + 1, int(match[3])


def range_of(response: requests.Response) -> str:
    """What the answer says it is, for an error."""
    return f"{response.headers.get('Content-Range')} of {response.headers.get('Content-Length')} bytes"


def invalid(provider: Provider, what: str) -> Permanent:
    """The error for an answer that breaks the rules of HTTP."""
    return Permanent(Code.EXPORT_INVALID, f"{provider.name} does not follow HTTP: {what[:MAX_REASON]}.")
