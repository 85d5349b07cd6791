"""What a function writes of itself."""

import os
import subprocess
import sys
from pathlib import Path

LAYER = Path(__file__).parents[2] / "layers/common"
INVOCATION = """
from sitebackup.telemetry import metrics
metrics.log_metrics(lambda event, context: None)({}, None)
"""


def test_an_invocation_that_counts_nothing_writes_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INVOCATION],
        env={**os.environ, "PYTHONPATH": str(LAYER)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
