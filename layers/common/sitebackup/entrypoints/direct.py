"""What functions share that an operator invokes: the event is checked, and each error that is known is an answer."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from ..domain.errors import BadRequest, Transient, Unavailable
from ..domain.model import Model, in_plain_words
from .problems import problem


def answer[T: Model](
    event: object, kind: type[T], work: Callable[[T, datetime], Model], deadline: datetime
) -> dict[str, Any]:
    """What `work` says, in JSON; or what stands in the way, as the HTTP API would say it: `status`, `type`, `detail`.

    A 503 says that the same event may be sent again.
    """
    try:
        return _json(work(_request(event, kind), deadline))
    except BadRequest as error:
        return _problem(error, str(error))
    except Unavailable as error:
        return _problem(error, str(error))
    except Transient as error:
        return _problem(Unavailable(), str(error))


def _request[T: Model](event: object, kind: type[T]) -> T:
    try:
        return msgspec.convert(event, kind)
    except msgspec.ValidationError as error:
        path, wrong = in_plain_words(error, kind)
        raise BadRequest(f"{path or 'event'}: {wrong}") from error


def _json(document: Model) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(document)
    return plain


def _problem(error: Exception, detail: str) -> dict[str, Any]:
    found = problem(error)
    return {"status": found.status, "type": found.type, "title": found.title, "detail": detail}
