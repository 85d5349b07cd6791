"""docs/openapi.json: valid, made of the code as it is, and true of the template and of docs/api.md."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator

from sitebackup.domain.principal import Scope
from sitebackup.entrypoints.problems import INTERNAL, PROBLEMS
from tests.unit.test_readme import API, TEMPLATE, rows

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs/openapi.json"
DOCUMENT: dict[str, Any] = json.loads(FILE.read_text())
OPERATIONS: dict[str, dict[str, Any]] = {
    f"{method.upper()} {path}": operation
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}


def test_the_description_is_what_the_code_declares_now(tmp_path: Path) -> None:
    """Else `make openapi` makes it anew."""
    made = tmp_path / "openapi.json"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": "layers/common:."}
    subprocess.run(
        [sys.executable, "-m", "scripts.openapi", str(made)],
        cwd=ROOT,
        env=environment,
        timeout=120,
        check=True,
    )
    assert made.read_text() == FILE.read_text()


def test_the_description_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_the_described_routes_are_those_of_the_template() -> None:
    routes = {
        f"{event['Properties']['Method']} {event['Properties']['Path']}"
        for resource in TEMPLATE["Resources"].values()
        for event in resource.get("Properties", {}).get("Events", {}).values()
        if event["Type"] == "HttpApi"
    }
    assert OPERATIONS.keys() == routes


def test_each_route_asks_users_for_the_scope_of_the_api_description() -> None:
    written = {key: cells[0].strip("`") for key, cells in rows(API, "route").items()}
    for key, operation in OPERATIONS.items():
        assert {"signature": []} in operation["security"], key
        if {"token": [written[key]]} not in operation["security"]:
            assert "by a service alone" in rows(API, "route")[key][1], key
    assert set(written.values()) == set(Scope)


def test_every_problem_is_what_some_route_may_answer() -> None:
    told = {
        (schema["properties"]["status"]["const"], kind)
        for response in DOCUMENT["components"]["responses"].values()
        for content in response["content"].values()
        for schema in content["schema"].get("allOf", [{}])[1:]
        for kind in schema["properties"]["type"]["enum"]
    }
    assert told == {(each.status, each.type) for each in [*PROBLEMS.values(), INTERNAL]}


def test_each_query_parameter_and_body_field_of_a_route_is_in_the_api_description() -> None:
    for key, operation in OPERATIONS.items():
        told = rows(API, "route")[key][1]
        for parameter in operation.get("parameters", []):
            if parameter["in"] != "path":
                assert f"`{parameter['name']}" in told, (key, parameter["name"])
        if "requestBody" in operation:
            (media,) = operation["requestBody"]["content"].values()
            name = media["schema"]["$ref"].rpartition("/")[2]
            for field in DOCUMENT["components"]["schemas"][name]["properties"]:
                assert f"`{field}" in told, (key, field)
