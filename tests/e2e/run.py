"""One `python -m local up`, as a process that a test can look into."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import requests

from local.services.processes import die_with_parent
from tests.e2e.client import wait_until

ROOT = Path(__file__).parents[2]
_START_SECONDS, _STOP_SECONDS = 60, 30
_ROUTINE = re.compile(r" (START|END|REPORT) RequestId|\{\"_aws\"|metrics")
_WRITTEN = re.compile(r"\S+ lambda\.\w+ +(\{.*\})")
_CONTEXT = re.compile(r'"service":.*"function_request_id":"[^"]*"')


class Run:
    """`ports` are the variables that choose them, `environment` any others; all of its files are in `folder`."""

    def __init__(self, folder: Path, ports: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._ports = ports
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ},
            "LOCAL_DIR": str(folder),
            **ports,
            **environment,
        }
        self.output = folder / "output"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once the API answers; fails with the end of the log otherwise. Call it in the main thread."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.output.open("ab") as output:
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", "local", "up", "--foreground"],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        wait_until("the run is up", lambda: process.poll() is not None or self._is_up(), _START_SECONDS)
        assert process.poll() is None, self.log_end()

    def _is_up(self) -> bool:
        if not (self.folder / "state.json").exists():
            return False
        try:
            return requests.get(f"{self.url('API')}/backup", timeout=10).status_code == 200
        except requests.RequestException:
            return False

    def stop(self) -> None:
        """SIGTERM; fails if anything of it is left then."""
        if self._process is None:
            return
        tree = self.processes()
        self._process.send_signal(signal.SIGTERM)
        try:
            assert self._process.wait(_STOP_SECONDS) == 0, self.log_end()
            _, left = psutil.wait_procs(tree, timeout=5)
            assert not left, f"left behind: {left}"
        finally:
            for process in tree:
                if process.is_running():
                    process.kill()
            self._process.wait(_STOP_SECONDS)
            self._process = None

    def processes(self) -> list[psutil.Process]:
        """The run and all that it started."""
        if self._process is None or self._process.poll() is not None:
            return []
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]

    def url(self, server: str) -> str:
        """Of API, LAMBDA or PROVIDERS."""
        return f"http://127.0.0.1:{self._ports[f'{server}_PORT']}"

    def log_end(self) -> str:
        """Of the log, what is neither routine nor a metric."""
        lines = self.output.read_text(errors="replace").splitlines()
        return "\n".join([_CONTEXT.sub("…", line) for line in lines if not _ROUTINE.search(line)][-80:])

    def log_size(self) -> int:
        """How many bytes the log has by now."""
        return self.output.stat().st_size

    def written(self, since: int) -> list[dict[str, Any]]:
        """What functions wrote behind the log's first `since` bytes: lines with a `level`, metrics with `_aws`."""
        with self.output.open("rb") as output:
            output.seek(since)
            lines = output.read().decode(errors="replace").split("\n")[:-1]  # the last one is not whole
        return [json.loads(found[1]) for line in lines if (found := _WRITTEN.fullmatch(line))]

    def environments(self, folder: str, *states: str) -> list[int]:
        """The pids of a function's processes, of those in one of `states` if any is given."""
        found = self._lambda("environments")
        return [
            one["pid"] for one in found if one["folder"] == folder and (not states or one["state"] in states)
        ]

    def mappings(self) -> list[dict[str, Any]]:
        """The status of each Kafka mapping."""
        return self._lambda("mappings")

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return state

    def _lambda(self, path: str) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = requests.get(f"{self.url('LAMBDA')}/{path}", timeout=10).json()
        return answer
