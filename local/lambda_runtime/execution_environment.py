"""One execution environment: a runtime process, its Runtime API, its log and its limits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..aws_account import REGION, function_arn
from ..services.processes import die_with_parent, memory
from ..template.model import Function
from .runtime_api import Invocation, Outcome, RuntimeApi, error_outcome

# Lambda gives Init 10 s, and on a later failure runs it again within the function's own timeout
# (developer guide, "Lambda execution environment lifecycle"): here the two are one span.
_INIT_SECONDS = 10
_STOP_SECONDS = 5
_LOG_TAIL_BYTES = 4 * 1024  # API reference of Invoke: LogType Tail returns the last 4 KB
_MAX_LINE_BYTES = 256 * 1024
_PIPE_BYTES = 64 * 1024
_PIPE_READS = 64  # at a time, so that a function that prints without end holds nobody up


@dataclass(frozen=True)
class Result:
    """The outcome of one invocation and the tail of what it logged."""

    request_id: str
    outcome: Outcome
    log_tail: bytes


class ExecutionEnvironment:
    """Runs the invocations of one function, one at a time, in one process group."""

    def __init__(
        self,
        function: Function,
        credentials: Mapping[str, str],
        python: Sequence[str] = (sys.executable,),
    ) -> None:
        """`python` is the command of the interpreter."""
        self.function = function
        self._python = python
        self.invocations = 0
        self.idle_since = 0.0
        self._credentials = credentials
        self._busy = False
        self._broken = False
        self._api = RuntimeApi()
        self._log = logging.getLogger(f"lambda.{function.folder}")
        self._process: asyncio.subprocess.Process | None = None
        self._exited: asyncio.Task[int] | None = None
        self._started_at = 0.0
        self._peak = 0
        self._pipe = -1
        self._line = bytearray()
        self._tail = bytearray()

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    @property
    def usable(self) -> bool:
        """Whether it can take an invocation now."""
        return self.alive and not self._busy and not self._broken

    def describe(self) -> dict[str, str | int]:
        """Function, pid, state, invocations, resident and peak resident memory in bytes."""
        pid = self._process.pid if self._process is not None else 0
        resident, peak = memory(pid)
        return {
            "function": self.function.name,
            "folder": self.function.folder,
            "pid": pid,
            "state": "starting" if not self._api.initialised.done() else "busy" if self._busy else "idle",
            "invocations": self.invocations,
            "rssBytes": resident,
            "peakRssBytes": peak,
        }

    async def invoke(self, request_id: str, payload: bytes, trace_id: str) -> Result:
        """Start the process if need be and run one invocation. Raises OSError if the process can't start."""
        self._busy = True
        cold = self._process is None
        try:
            if cold:
                await self._start()
            outcome = await self._initialise(request_id)
            initialised_at = time.monotonic()
            self._tail.clear()
            self._print(f"START RequestId: {request_id} Version: $LATEST")
            if outcome is None:
                outcome = await self._run(request_id, payload, trace_id)
            init_seconds = initialised_at - self._started_at if cold else None
            self._report(request_id, time.monotonic() - initialised_at, init_seconds)
            self.invocations += 1
            self._busy = False
            self._broken = outcome.ends_runtime
            return Result(request_id, outcome, bytes(self._tail[-_LOG_TAIL_BYTES:]))
        finally:
            # An invocation that did not come to its end leaves a process nobody knows the state of.
            self._broken = self._broken or self._busy
            self.idle_since = time.monotonic()

    async def stop(self) -> None:
        """Kill the process group and give everything back. Safe to call twice."""
        self._broken = True
        self._kill()
        if self._exited is not None:
            await asyncio.wait({self._exited}, timeout=_STOP_SECONDS)
        if self._pipe >= 0:
            self._read_log()
            asyncio.get_running_loop().remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = -1
        self._api.close()

    async def _start(self) -> None:
        self._started_at = time.monotonic()
        await self._api.start()
        self._pipe, write_end = os.pipe()
        os.set_blocking(self._pipe, False)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._python,
                "-m",
                "awslambdaric",
                self.function.handler,
                cwd=self.function.code,
                env=self._variables(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        finally:
            os.close(write_end)
        asyncio.get_running_loop().add_reader(self._pipe, self._read_log)
        self._exited = asyncio.create_task(self._process.wait())

    def _variables(self) -> dict[str, str]:
        """Lambda developer guide, "Defined runtime environment variables"; nothing of this shell gets in."""
        function = self.function
        return {
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": f"{datetime.now(UTC):%Y/%m/%d}/[$LATEST]{os.urandom(16).hex()}",
            "AWS_REGION": REGION,
            "LAMBDA_RUNTIME_DIR": str(Path(sys.prefix)),
            "LAMBDA_TASK_ROOT": str(function.code),
            "LANG": "en_US.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "PYTHONUTF8": "1",  # the locale that LANG names need not exist on this machine
            "TZ": ":UTC",
            **self._credentials,
            **function.environment,
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._api.port}",
            "PYTHONPATH": os.pathsep.join(map(str, (function.code, *function.layers))),
            "_HANDLER": function.handler,
        }

    async def _initialise(self, request_id: str) -> Outcome | None:
        """None once the runtime asks for work, else why it will not."""
        assert self._exited is not None
        limit = _INIT_SECONDS + self.function.timeout
        waiting: set[asyncio.Future[Any]] = {self._api.initialised, self._exited}
        await asyncio.wait(waiting, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if self._api.initialised.done():
            return self._api.initialised.result()
        return self._ended(request_id, limit)

    async def _run(self, request_id: str, payload: bytes, trace_id: str) -> Outcome:
        assert self._exited is not None
        invocation = Invocation(
            request_id=request_id,
            payload=payload,
            function_arn=function_arn(self.function.name),
            trace_id=trace_id,
            deadline_ms=int((time.time() + self.function.timeout) * 1000),
        )
        answer = asyncio.create_task(self._api.invoke(invocation))
        try:
            waiting: set[asyncio.Future[Any]] = {answer, self._exited}
            await asyncio.wait(waiting, timeout=self.function.timeout, return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else self._ended(request_id, self.function.timeout)
        finally:
            answer.cancel()

    def _ended(self, request_id: str, limit: float) -> Outcome:
        """The outcome of a process that exited, or of one that used up its time and is killed now."""
        assert self._exited is not None
        if self._exited.done():
            code = self._exited.result()
            how = f"signal: {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            message = f"RequestId: {request_id} Error: Runtime exited with error: {how}"
            outcome = error_outcome("Runtime.ExitError", message)
        else:
            self._note_memory()
            self._kill()
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            message = f"{now} {request_id} Task timed out after {limit:.2f} seconds"
            outcome = error_outcome("Sandbox.Timedout", message)
        self._read_log()
        self._print(message)
        return outcome

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _note_memory(self) -> None:
        assert self._process is not None
        self._peak = max(self._peak, memory(self._process.pid)[1])

    def _report(self, request_id: str, seconds: float, init_seconds: float | None) -> None:
        self._read_log()  # what the function wrote is in the pipe by now, before its answer
        self._note_memory()
        fields = [
            f"REPORT RequestId: {request_id}",
            f"Duration: {seconds * 1000:.2f} ms",
            f"Memory Size: {self.function.memory} MB",
            f"Max Memory Used: {round(self._peak / 1024 / 1024)} MB",
        ]
        if init_seconds is not None:
            fields.append(f"Init Duration: {init_seconds * 1000:.2f} ms")
        self._print(f"END RequestId: {request_id}")
        self._print("\t".join(fields))

    def _read_log(self) -> None:
        """Print what is in the pipe; at its end, or when a line gets too long, also the unfinished line."""
        ended = False
        for _ in range(_PIPE_READS if self._pipe >= 0 else 0):
            try:
                chunk = os.read(self._pipe, _PIPE_BYTES)
            except BlockingIOError:
                break
            *lines, rest = (self._line + chunk).split(b"\n")
            self._line = bytearray(rest)
            for line in lines:
                self._print(line.decode(errors="replace"))
            ended = not chunk  # every process that could write is gone
            if ended:
                asyncio.get_running_loop().remove_reader(self._pipe)
                break
        if self._line and (ended or len(self._line) > _MAX_LINE_BYTES):
            self._print(self._line.decode(errors="replace"))
            self._line.clear()

    def _print(self, line: str) -> None:
        # The runtime client parts the lines of a stack trace by CR, so that CloudWatch shows one event.
        line = line.rstrip("\r").replace("\r", "\n    ")
        self._tail += line.encode(errors="replace") + b"\n"
        del self._tail[: -2 * _LOG_TAIL_BYTES]
        self._log.info("%s", line)
