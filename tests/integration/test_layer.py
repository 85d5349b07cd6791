"""The layer as `sam build` makes it: complete by itself, and quick to import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.deployed import Deployed, deploy
from benchmarks.servers import ROOT

FUNCTIONS = sorted(path.parent for path in (ROOT / "functions").glob("*/app.py"))
UNCHECKED_HASH = 0b01  # PEP 552: the second word of a .pyc

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 13) or sys.platform != "linux" or os.uname().machine != "x86_64",
    reason="the layer's wheels are Lambda's: Linux, x86-64, Python 3.13",
)


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    return deploy(tmp_path_factory.mktemp("deployed"))


def run(layer: Deployed, code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "PYTHONPATH": str(layer.layer),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "PROVIDERS": '[{"name":"site","exportUrl":"http://127.0.0.1:1/"}]',
        "BACKUP_BUCKET": "b",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "MONGO_URI": "mongodb://127.0.0.1:1",
        "POWERTOOLS_METRICS_NAMESPACE": "test",
    }
    return subprocess.run(
        [*layer.python, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("folder", FUNCTIONS, ids=lambda folder: folder.name)
def test_every_function_starts_on_the_layer_alone(layer: Deployed, folder: Path) -> None:
    done = run(layer, "import app, os; assert callable(app.handler); os._exit(0)", folder)
    assert done.returncode == 0, done.stderr


def test_it_describes_the_services_that_are_called_and_no_others(layer: Deployed) -> None:
    code = "import boto3; [boto3.client(name) for name in ('s3', 'secretsmanager')]"
    done = run(layer, code, ROOT)
    assert done.returncode == 0, done.stderr
    described = {path.name for path in (layer.layer / "botocore/data").iterdir() if path.is_dir()}
    assert described == {"s3", "secretsmanager"}


def test_modules_have_byte_code_that_a_change_of_times_does_not_invalidate(layer: Deployed) -> None:
    sources = list((layer.layer / "sitebackup").rglob("*.py")) + list((layer.layer / "pymongo").rglob("*.py"))
    assert sources
    for source in sources:
        compiled = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
        assert int.from_bytes(compiled.read_bytes()[4:8], "little") == UNCHECKED_HASH
