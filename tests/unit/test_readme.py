"""README and docs, held against what they describe."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from local.template.intrinsics import parse
from sitebackup.domain.catalog import DifferenceCode
from sitebackup.domain.provider import Provider
from sitebackup.domain.reason import Code
from sitebackup.domain.retention import Action, Why
from sitebackup.entrypoints.problems import INTERNAL, PROBLEMS

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs/api.md").read_text()
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
TEMPLATE: dict[str, Any] = parse((ROOT / "template.yaml").read_text())
DOCS = sorted([*ROOT.glob("*.md"), ROOT / "mock_providers/README.md", *(ROOT / "docs").rglob("*.md")])
JSON_BLOCK = re.compile(r"```json\n(.*?)```", re.DOTALL)


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of the table whose first column has this heading, row by row, without code marks around a cell."""
    lines = text[text.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [
        [re.sub(r"^`([^`]*)`$", r"\1", cell.strip()) for cell in line.strip().strip("|").split(" | ")]
        for line in lines
    ]


def rows(text: str, heading: str) -> dict[str, list[str]]:
    """From each first cell to the others."""
    return {first: others for first, *others in table(text, heading)}


def test_every_parameter_is_in_the_settings_table_with_its_default() -> None:
    written = {name: default for name, default, _ in table(CONFIGURATION, "parameter")}
    defaults = {
        name: str(each["Default"]) or "empty" if "Default" in each else "required"
        for name, each in TEMPLATE["Parameters"].items()
    }
    assert written == defaults


def test_every_reason_is_in_the_reason_table_and_says_what_to_do() -> None:
    written = rows(OPERATIONS, "code")
    assert written.keys() == set(Code)
    assert all(len(cells) == 2 and all(cells) for cells in written.values())


def test_every_route_is_in_the_api_description() -> None:
    routes = {
        f"{event['Properties']['Method']} {event['Properties']['Path']}"
        for resource in TEMPLATE["Resources"].values()
        for event in resource.get("Properties", {}).get("Events", {}).values()
        if event["Type"] == "HttpApi"
    }
    assert rows(API, "route").keys() == routes


def test_every_difference_of_the_catalogue_is_in_the_operations_guide_and_says_what_to_do() -> None:
    written = rows(OPERATIONS, "difference")
    named = [name for first in written for name in re.findall(r"[a-z_]+", first)]
    assert sorted(named) == sorted(DifferenceCode)
    assert all(len(cells) == 2 and all(cells) for cells in written.values())


def test_every_problem_is_in_the_api_description() -> None:
    written = {(int(status), kind) for status, kind, _ in table(API, "status | `type`")}
    assert written == {(each.status, each.type) for each in [*PROBLEMS.values(), INTERNAL]}


def test_every_retention_decision_is_in_the_api_description() -> None:
    written = rows(API, "action")
    assert written.keys() == set(Action)
    named = {name for cells in written.values() for name in re.findall(r"`([a-z_]+)`", cells[0])}
    assert named == set(Why)


def test_every_metric_that_is_counted_is_in_the_operations_guide_and_no_other() -> None:
    sources = [path.read_text() for path in (ROOT / "layers/common/sitebackup").rglob("*.py")]
    counted = {
        name
        for text in sources
        for name in re.findall(r'(?:\bcount|\btimed|single_metric|add_metric)\(\s*"(\w+)"', text)
        + re.findall(r'Action\.[A-Z_]+: "(\w+)"', text)
    }
    written = {name for first in rows(OPERATIONS, "metric") for name in re.findall(r"[A-Z]\w+", first)}
    assert written == counted


def test_every_alarm_is_in_the_operations_table_and_on_the_dashboard() -> None:
    resources = parse((ROOT / "infrastructure/monitoring.yaml").read_text())["Resources"]
    alarms = {name for name, each in resources.items() if each["Type"] == "AWS::CloudWatch::Alarm"}
    assert rows(OPERATIONS, "alarm").keys() == alarms
    dashboard = resources["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    assert set(re.findall(r"\$\{(\w+)\.Arn\}", dashboard)) == alarms


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_named_make_targets_exist(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = re.findall(r"`[^`\n]+`|^ {4}.+$", path.read_text(), re.MULTILINE)
    named = {name for each in code for name in re.findall(r"(?<![\w-])make ([a-z-]+)", each)}
    assert named <= targets


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_work_in_any_shell_with_an_older_curl(path: Path) -> None:
    """curl knows `--json` since 7.82; a variable that the shell sets itself holds something else than is meant."""
    examples = "\n".join(re.findall(r"^ {4}.+$", path.read_text(), re.MULTILINE))
    assert "--json" not in examples
    assert not re.findall(r"\$(?:USER|HOSTNAME|LOGNAME|UID)\b", examples)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_inside_the_repository_lead_somewhere(path: Path) -> None:
    for target, anchor in re.findall(
        r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)", path.read_text()
    ):
        linked = (path.parent / target).resolve() if target else path
        assert linked.exists(), f"{target} does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}


@pytest.mark.parametrize(
    "path",
    [path for path in DOCS if JSON_BLOCK.search(path.read_text())],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_json_in_the_docs_can_be_read(path: Path) -> None:
    blocks = JSON_BLOCK.findall(path.read_text())
    assert blocks
    for block in blocks:
        json.loads(block)


def test_every_field_of_a_provider_is_in_the_configuration() -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(Provider)}
    assert rows(CONFIGURATION, "field").keys() == fields


def test_the_index_of_decisions_names_every_record_with_its_title_status_and_date() -> None:
    folder = ROOT / "docs/decisions"
    records = {path.name: path.read_text().splitlines()[0] for path in folder.glob("[0-9]*.md")}
    index = table((folder / "README.md").read_text(), "number")
    links = [re.fullmatch(r"\[(\d{4})\]\((.+)\)", cells[0]) for cells in index]
    assert {
        link[2]: f"# {link[1]}: {cells[1]}" for link, cells in zip(links, index, strict=True) if link
    } == records
    assert len(index) == len(records)
    for _, _, status, date in index:
        assert re.match(r"(accepted|superseded by \[\d{4}\])", status)
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", date)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_that_is_named_in_the_docs_exists(path: Path) -> None:
    for file, name in re.findall(r"\b(tests/[\w/]+\.py)(?:::(\w+))?", path.read_text()):
        assert (ROOT / file).is_file(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text(), f"{file}::{name}"
