"""The layer as `sam build` makes it: complete by itself, and quick to import."""

import os
import re
import ssl
import subprocess
import sys
from pathlib import Path
from shutil import copyfile, copytree, ignore_patterns

import pytest

from benchmarks.deployed import LAYER, Deployed, deploy
from benchmarks.servers import ROOT
from local.services.service import Service
from tests.contract.wire import certificate, proxy

FUNCTIONS = sorted(path.parent for path in (ROOT / "functions").glob("*/app.py"))
UNCHECKED_HASH = 0b01  # PEP 552: the second word of a .pyc

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 13) or sys.platform != "linux" or os.uname().machine != "x86_64",
    reason="the layer's wheels are Lambda's: Linux, x86-64, Python 3.13",
)


BUNDLE = "global-bundle.pem"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    """Of the database's certificate: one that no public list holds, as Amazon's own for DocumentDB."""
    return certificate(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory, authority: tuple[ssl.SSLContext, Path]) -> Deployed:
    """Made as docs/deploy.md tells, with the authorities' file beside the Makefile."""
    source = tmp_path_factory.mktemp("source") / "common"
    copytree(LAYER, source, ignore=ignore_patterns("__pycache__"))
    copyfile(authority[1], source / BUNDLE)
    return deploy(tmp_path_factory.mktemp("deployed"), source)


def run(
    layer: Deployed, code: str, folder: Path, mongo_uri: str = "mongodb://127.0.0.1:1"
) -> subprocess.CompletedProcess[str]:
    environment = {
        "PYTHONPATH": str(layer.layer),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "PROVIDERS": '[{"name":"site","exportUrl":"http://127.0.0.1:1/"}]',
        "BACKUP_BUCKET": "b",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "MONGO_URI": mongo_uri,
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


def test_it_holds_the_authorities_where_documentdb_s_connection_string_names_them(
    layer: Deployed, authority: tuple[ssl.SSLContext, Path], mongo: Service, tmp_path: Path
) -> None:
    template = (ROOT / "infrastructure/network-and-data.yaml").read_text()
    (named,) = re.findall(r"tlsCAFile=([^&]+)&", template)
    file = layer.layer / Path(named).relative_to("/opt/python")
    code = (
        "from sitebackup.bootstrap import Bootstrap; print(Bootstrap.from_env().adapters.jobs.get('a' * 24))"
    )
    known, (unknown, _) = authority[0], certificate(tmp_path)
    for tls, read in ((known, True), (unknown, False)):
        with proxy(mongo.port, tls=tls) as wire:
            options = f"tls=true&tlsCAFile={file}&retryWrites=false&directConnection=true"
            done = run(layer, code, ROOT, f"mongodb://127.0.0.1:{wire.port}/?{options}")
        assert (done.stdout == "None\n") is read, done.stderr
        assert read or "MongoDB does not answer" in done.stderr


def test_a_file_of_authorities_that_is_missing_is_named(layer: Deployed) -> None:
    uri = "mongodb://user:password@127.0.0.1/?tls=true&tlsCAFile=/opt/python/missing.pem"
    done = run(layer, "import app", ROOT / "functions/get_job", uri)
    assert done.returncode != 0
    assert "SettingsError: the connection string of MongoDB names a file that can't be read: " in done.stderr
    assert "/opt/python/missing.pem" in done.stderr
    assert "password" not in done.stderr


def test_it_describes_the_services_that_are_called_and_no_others(layer: Deployed) -> None:
    sources = "".join(path.read_text() for path in (LAYER / "sitebackup").rglob("*.py"))
    named = re.findall(r'boto3\.client\(\s*"([a-z0-9-]+)"', sources)
    assert len(named) == sources.count("boto3.client("), "each client names its service where it is made"
    called = set(named)
    described = {path.name for path in (layer.layer / "botocore/data").iterdir() if path.is_dir()}
    assert described == called >= {"s3"}
    done = run(layer, f"import boto3; [boto3.client(name) for name in {called}]", ROOT)
    assert done.returncode == 0, done.stderr


def test_modules_have_byte_code_that_a_change_of_times_does_not_invalidate(layer: Deployed) -> None:
    sources = list((layer.layer / "sitebackup").rglob("*.py")) + list((layer.layer / "pymongo").rglob("*.py"))
    assert sources
    for source in sources:
        compiled = source.parent / "__pycache__" / f"{source.stem}.{sys.implementation.cache_tag}.pyc"
        assert int.from_bytes(compiled.read_bytes()[4:8], "little") == UNCHECKED_HASH
