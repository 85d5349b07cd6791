"""The Lambda service of a local run: pools of execution environments, concurrency, reload, queued events."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..template.model import Function
from .client import new_trace_id
from .execution_environment import ExecutionEnvironment, Result

log = logging.getLogger("lambda")

DEFAULT_CONCURRENCY = 10
# Developer guide, "Lambda function scaling": AWS adds up to 1,000 environments every 10 s. This machine ends at its
# few, so a burst waits for them instead of being refused; API Gateway's 30 s leave 10 for the function itself.
_WAIT_SECONDS = 20.0
_MAX_WAITING = 1000
_IDLE_SECONDS = 300.0
_RELOAD_CHECK_SECONDS = 1.0
_MAX_EVENTS = 1000
# Developer guide, "How Lambda handles errors and retries with asynchronous invocation": two more attempts,
# one minute and then two minutes later; throttles are retried for up to 6 hours, from 1 s up to 5 minutes.
_EVENT_RETRY_SECONDS = (60.0, 120.0)
_EVENT_MAX_AGE_SECONDS = 6 * 3600.0
_THROTTLE_WAIT_SECONDS = (1.0, 300.0)

Stamp = frozenset[tuple[str, int]]


class FunctionNotFound(LookupError):
    """No function of that name."""


class Throttled(RuntimeError):
    """Over the concurrency of the function, or over the queue of events; try again later."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass
class _Pool:
    function: Function
    limit: int
    slots: asyncio.Semaphore
    stamp: Stamp
    checked_at: float
    waiting: int = 0
    idle: list[ExecutionEnvironment] = field(default_factory=list)
    busy: set[ExecutionEnvironment] = field(default_factory=set)


class LambdaService:
    """Runs the functions of a template. Everything runs in the event loop it is started in."""

    def __init__(
        self,
        functions: Mapping[str, Function],
        *,
        credentials: Mapping[str, str] | None = None,
        default_concurrency: int = DEFAULT_CONCURRENCY,
        wait_seconds: float = _WAIT_SECONDS,
        max_waiting: int = _MAX_WAITING,
        idle_seconds: float = _IDLE_SECONDS,
        event_retry_seconds: Sequence[float] = _EVENT_RETRY_SECONDS,
    ) -> None:
        """`credentials` are AWS_ACCESS_KEY_ID and its like, put into every function's environment.

        A function without reserved concurrency has up to `default_concurrency` environments; while all are busy,
        up to `max_waiting` invocations wait for one, in turn and up to `wait_seconds`.
        """
        self._credentials = dict(credentials or {})
        self._wait_seconds = wait_seconds
        self._max_waiting = max_waiting
        self._idle_seconds = idle_seconds
        self._event_retry_seconds = event_retry_seconds
        self._pools: dict[str, _Pool] = {}
        self._folders: dict[str, str] = {}
        for name, function in functions.items():
            limit = default_concurrency if function.concurrency is None else function.concurrency
            slots = asyncio.Semaphore(limit)
            self._pools[name] = _Pool(function, limit, slots, source_stamp(function), time.monotonic())
            self._folders[function.folder] = name
        self._events: set[asyncio.Task[None]] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._stopping = False

    def start(self) -> None:
        """Begin to end idle environments; call it in the event loop."""
        self._spawn(self._end_idle())

    async def stop(self) -> None:
        """End every environment and drop the events still queued, saying how many."""
        self._stopping = True
        if self._events:
            log.warning("%d queued events are dropped by the stop", len(self._events))
        tasks = [*self._events, *self._background]
        for task in tasks:
            task.cancel()
        pools = self._pools.values()
        environments = [one for pool in pools for one in (*pool.idle, *pool.busy)]
        await asyncio.gather(*tasks, *(one.stop() for one in environments), return_exceptions=True)

    def find(self, name: str) -> Function:
        """The function by logical id, folder or ARN, with or without a qualifier. Raises FunctionNotFound."""
        return self._pool(name).function

    def environments(self) -> list[dict[str, str | int]]:
        """What runs now: see ExecutionEnvironment.describe."""
        pools = self._pools.values()
        return [one.describe() for pool in pools for one in (*pool.idle, *pool.busy) if one.alive]

    async def invoke(
        self, name: str, payload: bytes, *, request_id: str | None = None, trace_id: str | None = None
    ) -> Result:
        """Run one invocation and wait for it. Raises FunctionNotFound, Throttled, or OSError (no process)."""
        pool = self._pool(name)
        await self._take_slot(pool)
        try:
            return await self._invoke(
                pool, request_id or str(uuid.uuid4()), payload, trace_id or new_trace_id()
            )
        finally:
            pool.slots.release()

    async def _take_slot(self, pool: _Pool) -> None:
        """Wait for one of the environments the function may have. Raises Throttled."""
        function = pool.function
        if pool.slots.locked():
            if function.concurrency is not None:  # as reserved: AWS refuses the rest at once
                raise Throttled("Rate Exceeded.", "ReservedFunctionConcurrentInvocationLimitExceeded")
            if pool.waiting >= self._max_waiting:
                raise _all_busy(pool, f"{pool.waiting} are waiting already")
        pool.waiting += 1
        try:
            async with asyncio.timeout(self._wait_seconds):
                await pool.slots.acquire()
        except TimeoutError:
            raise _all_busy(pool, f"none came free within {self._wait_seconds:g} s") from None
        finally:
            pool.waiting -= 1

    async def _invoke(self, pool: _Pool, request_id: str, payload: bytes, trace_id: str) -> Result:
        if self._stopping:
            raise Throttled("The Lambda service is stopping.", "ConcurrentInvocationLimitExceeded")
        self._reload(pool)
        environment = self._take(pool)
        stamp = pool.stamp
        pool.busy.add(environment)
        try:
            return await environment.invoke(request_id, payload, trace_id)
        finally:
            pool.busy.discard(environment)
            if environment.usable and stamp == pool.stamp and not self._stopping:
                pool.idle.append(environment)
            else:
                self._spawn(environment.stop())

    def submit(self, name: str, payload: bytes, *, trace_id: str | None = None) -> str:
        """Queue an Event invocation and return its request id. Raises FunctionNotFound, Throttled."""
        self._pool(name)
        if len(self._events) >= _MAX_EVENTS:
            raise Throttled(f"{_MAX_EVENTS} events are queued already.", "CallerRateLimitExceeded")
        request_id = str(uuid.uuid4())
        task = asyncio.create_task(self._run_event(name, payload, request_id, trace_id or new_trace_id()))
        self._events.add(task)
        task.add_done_callback(self._events.discard)
        return request_id

    async def _run_event(self, name: str, payload: bytes, request_id: str, trace_id: str) -> None:
        expires = time.monotonic() + _EVENT_MAX_AGE_SECONDS
        throttle_wait, longest_wait = _THROTTLE_WAIT_SECONDS
        retries = list(self._event_retry_seconds)
        while True:
            try:
                result = await self.invoke(name, payload, request_id=request_id, trace_id=trace_id)
            except Throttled:
                wait, throttle_wait = throttle_wait, min(throttle_wait * 2, longest_wait)
                why = "throttled"
            except OSError as error:
                wait, why = retries.pop(0) if retries else -1, f"could not start: {error}"
            else:
                if not result.outcome.failed:
                    return
                wait = retries.pop(0) if retries else -1
                why = result.outcome.payload[:500].decode(errors="replace")
            if wait < 0 or time.monotonic() + wait > expires:
                log.error("%s: event %s is discarded, no attempt is left: %s", name, request_id, why)
                return
            log.warning("%s: event %s is tried again in %g s: %s", name, request_id, wait, why)
            await asyncio.sleep(wait)

    def _pool(self, name: str) -> _Pool:
        plain = name.partition(":function:")[2] or name
        plain = plain.partition(":")[0]
        try:
            return self._pools[self._folders.get(plain, plain)]
        except KeyError:
            raise FunctionNotFound(f"Function not found: {name}") from None

    def _take(self, pool: _Pool) -> ExecutionEnvironment:
        while pool.idle:
            environment = pool.idle.pop()
            if environment.usable:
                return environment
            self._spawn(environment.stop())
        return ExecutionEnvironment(pool.function, self._credentials)

    def _reload(self, pool: _Pool) -> None:
        now = time.monotonic()
        if now - pool.checked_at < _RELOAD_CHECK_SECONDS:
            return
        pool.checked_at = now
        stamp = source_stamp(pool.function)
        if stamp != pool.stamp:
            log.info("%s: the source changed, new environments take over", pool.function.folder)
            pool.stamp = stamp
            self._retire(pool, pool.idle)

    def _retire(self, pool: _Pool, environments: list[ExecutionEnvironment]) -> None:
        pool.idle = [one for one in pool.idle if one not in environments]
        for environment in environments:
            self._spawn(environment.stop())

    async def _end_idle(self) -> None:
        while True:
            await asyncio.sleep(min(60.0, self._idle_seconds))
            since = time.monotonic() - self._idle_seconds
            for pool in self._pools.values():
                self._retire(pool, [one for one in pool.idle if one.idle_since < since or not one.alive])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _all_busy(pool: _Pool, why: str) -> Throttled:
    return Throttled(
        f"All {pool.limit} environments of {pool.function.folder} are busy and {why}; "
        "CONCURRENCY sets how many there may be.",
        "ConcurrentInvocationLimitExceeded",
    )


def source_stamp(function: Function) -> Stamp:
    """The files of a function and its layers with their modification times."""
    folders = (function.code, *function.layers)
    return frozenset(entry for folder in folders for entry in _files(folder))


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for root, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for file in files:
            path = os.path.join(root, file)
            try:
                yield path, os.stat(path).st_mtime_ns
            except FileNotFoundError:
                continue  # an editor's temporary file, gone since the listing
