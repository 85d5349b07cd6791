"""Child processes that end with their parent, the memory they use, and ports that stay theirs."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
NO_OUTPUT = "(no output)"
_random = random.SystemRandom()  # tests may seed the shared generator, and then choose the same ports
_given: set[int] = set()


def die_with_parent() -> None:
    """For `preexec_fn`: the kernel kills this process when the thread that started it ends (Linux only).

    The signal follows the *thread*, prctl(2): start children from a thread that lives as long as they shall.
    """
    take_interrupts()
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Keeps signals that end a command waiting until the block is over.

    Around a fork Python runs hooks, and drops whatever is raised in them: an interrupt would be lost. The child must
    call `take_interrupts`, as `die_with_parent` does.
    """
    held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)


def take_interrupts() -> None:
    """For `preexec_fn`: whatever the parent holds, its child does not."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def spawn(
    command: Sequence[str], *, cwd: Path, log: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start `command` as the leader of a process group of its own; its output is appended to `log`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def end(process: subprocess.Popen[bytes], limit: float = 10.0) -> None:
    """End a group started by `spawn`: SIGTERM, then SIGKILL after `limit` seconds; it is gone on return."""
    signal_group(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(limit)
    signal_group(process, signal.SIGKILL)  # also what the leader left behind
    process.wait()


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the whole group, if any of it is left."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def size(log: Path) -> int:
    """Bytes in a log file, 0 if there is none."""
    return log.stat().st_size if log.exists() else 0


def last_lines(log: Path, count: int = 15, since: int = 0) -> str:
    """The end of a log file, for an error message; `since` is its size before what is of interest was written."""
    now = size(log)
    if now < since:  # it was rotated meanwhile
        since = 0
    if now == since:
        return NO_OUTPUT
    with log.open("rb") as file:
        file.seek(max(since, now - 16_384))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(lines[-count:])


def memory(pid: int) -> tuple[int, int]:
    """Resident and peak resident memory of a process in bytes; (0, 0) when it is gone.

    Where the kernel has no /proc, the peak is the present value.
    """
    status = Path(f"/proc/{pid}/status")
    if sys.platform == "linux":
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:
            return 0, 0
        resident, peak = (int(fields.get(key, "0 kB").split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))
        return resident, peak
    try:
        now = psutil.Process(pid).memory_info().rss
    except psutil.Error:
        return 0, 0
    return now, now


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A free port below the ephemeral range, so no outgoing connection takes it while its server restarts.

    Never the same one twice, and other processes most likely choose others: the ports of a whole system are chosen
    before the first of its servers listens. Raises RuntimeError if a thousand tries find none.
    """
    first = 15_000 + os.getpid() % 17 * 1000
    for _ in range(1000):
        port = _random.randrange(first, first + 1000)
        if port not in _given and port_is_free(port):
            _given.add(port)
            return port
    raise RuntimeError(
        f"found no free port between {first} and {first + 1000}: end some of the processes that listen there"
    )
