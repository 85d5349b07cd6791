"""What a test can do at each call of a port: let others run, crash the caller, or spoil the answer."""

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import Concatenate, Protocol


class FaultInjector(Protocol):
    """Stands before and behind every call of a port. The port's name is the attribute of `Adapters`."""

    def __call__[T](self, port: str, name: str, call: Callable[[], T], /) -> T: ...


def no_faults[T](port: str, name: str, call: Callable[[], T]) -> T:
    """Every call does what it promises."""
    return call()


class Fake:
    """What all fakes share. Calls of one fake do not overlap, as a server carries them out one by one."""

    port: str

    def __init__(self, faults: FaultInjector = no_faults) -> None:
        self._faults = faults
        self._one_call = RLock()

    def call[T](self, name: str, work: Callable[[], T]) -> T:
        """Carries out one call of the port."""

        def alone() -> T:
            with self._one_call:
                return work()

        return self._faults(self.port, name, alone)


def port_call[S: Fake, **P, T](method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """Makes the whole method one call of the port."""

    @wraps(method)
    def called(self: S, /, *arguments: P.args, **named: P.kwargs) -> T:
        return self.call(method.__name__, lambda: method(self, *arguments, **named))

    return called
