"""`make demo` as its user sees it: a bar that moves, and nothing left behind however it ends."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from local.paths import ROOT
from mock_providers.client import MockSite

LIMIT_SECONDS = 280.0
RESTORE = "Then the site changes"
"""What the demo says before it restores."""


class Demo:
    """One run of the demo with a folder for temporary files of its own, and all processes that it ever had."""

    def __init__(self, folder: Path) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self._output = folder / "output"
        self._seen: dict[int, psutil.Process] = {}
        self._ports: set[str] = set()
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "local", "demo"],
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(self.temporary), "FORCE_COLOR": "1", "COLUMNS": "120"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._output.read_text(errors="replace"))

    def wait_for(self, condition: Callable[["Demo"], bool]) -> None:
        """Until it holds, or the demo has ended."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while self._process.poll() is None and not condition(self):
            assert time.monotonic() < deadline, self._log()
            self._look()
            time.sleep(0.02)

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Wait until it has ended; its exit code."""
        self.wait_for(lambda _: False)
        return self._process.wait()

    def left(self) -> list[str]:
        """Files and sockets of temporary folders, and processes that are still there after a moment."""
        deadline = time.monotonic() + 10
        while (
            running := [str(one) for one in self._seen.values() if _runs(one)]
        ) and time.monotonic() < deadline:
            time.sleep(0.05)
        sockets = [path for path in Path("/tmp").glob("seaweedfs-*.sock") if path.stem[-5:] in self._ports]
        java = [path for path in Path("/tmp").glob("hsperfdata_*/*") if int(path.name) in self._seen]
        return [*running, *map(str, [*sockets, *java, *self.temporary.iterdir()])]

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _log(self) -> str:
        """The end of the run's log, without the answers to those who follow the job."""
        lines = [line for path in self.temporary.glob("*/log") for line in path.read_text().splitlines()]
        return "\n".join([line for line in lines if "lambda.get_job" not in line][-60:])

    def _look(self) -> None:
        try:
            for process in psutil.Process(self._process.pid).children(recursive=True):
                self._seen[process.pid] = process
                self._ports |= set(re.findall(r"-\S*port\S*=(\d{5})", " ".join(process.cmdline())))
        except psutil.NoSuchProcess:
            return


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_demo_shows_progress_and_leaves_nothing(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    try:
        assert demo.end() == 0, demo.output()
        backup, restore = demo.output().split(RESTORE)
        assert "Every byte is the same." in backup
        assert "Every byte is back." in restore
        for bars in (backup, restore):
            shown = set(re.findall(r"site .*?([\d.]+)/48\.0 MiB", bars))
            assert len(shown - {"0.0", "48.0"}) >= 3, shown
        assert demo.left() == []
    finally:
        demo.kill()


def test_the_demo_fails_if_what_comes_back_differs(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    try:
        demo.wait_for(MOMENTS["the bytes come back"])
        ports = json.loads(next(demo.temporary.glob("*/state.json")).read_text())["ports"]
        site_id = re.findall(r"for the site ([0-9a-f]{24})", demo.output())[0]
        site = MockSite(f"http://127.0.0.1:{ports['PROVIDERS']}", "db", site_id=site_id)
        site.set(size=None, wrongBody=True)
        assert demo.end() == 1, demo.output()
        assert "The restore is done" in demo.output()
        assert re.search(r"db .* NO *\n *site .* yes *\n *What came back differs\.", demo.output())
        assert "Data and logs are kept in" in demo.output()
    finally:
        demo.kill()


MOMENTS: dict[str, Callable[[Demo], bool]] = {
    "its folder is made": lambda demo: any(demo.temporary.iterdir()),
    "Kafka is formatted": lambda demo: any(demo.temporary.glob("*/kafka/server.properties")),
    "the S3 server starts": lambda demo: any(demo.temporary.glob("*/s3.log")),
    "all is up": lambda demo: "Everything is up" in demo.output(),
    "the bytes move": lambda demo: re.search(r"[1-9][\d.]*/48\.0 MiB", demo.output()) is not None,
    "the bytes are compared": lambda demo: "The job is done" in demo.output(),
    "the bytes come back": lambda demo: (
        re.search(RESTORE + r".*[1-9][\d.]*/48\.0 MiB", demo.output(), re.DOTALL) is not None
    ),
    "it stops": lambda demo: "Every byte is back" in demo.output(),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_nothing_is_left_of_a_demo_that_is_interrupted_twice_when(moment: str, tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    try:
        demo.wait_for(MOMENTS[moment])
        demo.interrupt()
        time.sleep(0.05)  # any moment will do for the second one
        demo.interrupt()
        code = demo.end()
        assert code == 130 or (moment == "it stops" and code == 0), demo.output()
        assert "Traceback" not in demo.output()
        assert demo.left() == []
    finally:
        demo.kill()
