"""How MongoDB and Amazon DocumentDB are reached, and what becomes of a connection that dies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from pymongo import MongoClient
from pymongo.errors import ConnectionFailure, DuplicateKeyError, PyMongoError, ServerSelectionTimeoutError

from ...domain.errors import RepositoryUnavailable


def connect(uri: str) -> MongoClient[dict[str, Any]]:
    """A client that gives up after about 3 s. No retryable writes: DocumentDB has none.

    A connection that was idle for 4 minutes is not used again, since NAT gateways and load balancers forget one after
    350 s and an environment that was frozen has not noticed. `once_more` makes up for one that dies sooner.
    """
    return MongoClient(
        uri,
        tz_aware=True,
        retryWrites=False,
        retryReads=False,  # `once_more` does it
        serverSelectionTimeoutMS=3000,
        connectTimeoutMS=3000,
        socketTimeoutMS=10_000,
        maxPoolSize=8,
        maxIdleTimeMS=240_000,
    )


class AnswerLost(RepositoryUnavailable):
    """The connection broke before an answer came, as one does that the network forgot: a write may have happened."""


def once_more[**P, T](method: Callable[P, T]) -> Callable[P, T]:
    """One more try after AnswerLost, for methods that may be carried out twice.

    PyMongo's own repeats one read or write more often than a caller can wait, or needs what DocumentDB has not got.
    """

    @wraps(method)
    def twice(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except AnswerLost:
            return method(*args, **kwargs)

    return twice


def settled(write: Callable[[], bool], is_stored: Callable[[], bool]) -> bool:
    """Whether a write took place that tells so itself, as a compare-and-set does.

    After AnswerLost it is sent again, which is safe: at most one of the two takes place. If the second does not,
    `is_stored` tells whether the first did.
    """
    try:
        return write()
    except AnswerLost:
        return write() or is_stored()


@contextmanager
def reachable() -> Iterator[None]:
    """Whatever keeps MongoDB from answering is RepositoryUnavailable, or AnswerLost; only a duplicate key passes."""
    try:
        yield
    except DuplicateKeyError:
        raise
    except ServerSelectionTimeoutError as error:
        raise RepositoryUnavailable("MongoDB does not answer.") from error
    except ConnectionFailure as error:
        raise AnswerLost("MongoDB does not answer.") from error
    except PyMongoError as error:
        raise RepositoryUnavailable(f"MongoDB refused a command: {type(error).__name__}.") from error
