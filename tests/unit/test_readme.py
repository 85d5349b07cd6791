"""README and docs, held against what they describe."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from local.template.intrinsics import parse
from sitebackup.domain.reason import Code
from sitebackup.domain.retention import Action, Why
from sitebackup.errors import INTERNAL, PROBLEMS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
API = (ROOT / "docs/api.md").read_text()
TEMPLATE: dict[str, Any] = parse((ROOT / "template.yaml").read_text())
DOCS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


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
    written = {name: default for name, default, _ in table(README, "parameter")}
    defaults = {
        name: str(each["Default"]) or "empty" if "Default" in each else "required"
        for name, each in TEMPLATE["Parameters"].items()
    }
    assert written == defaults


def test_every_reason_is_in_the_reason_table_and_says_what_to_do() -> None:
    written = rows(README, "code")
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


def test_every_problem_is_in_the_api_description() -> None:
    written = {(int(status), kind) for status, kind, _ in table(API, "status | `type`")}
    assert written == {(each.status, each.type) for each in [*PROBLEMS.values(), INTERNAL]}


def test_every_retention_decision_is_in_the_api_description() -> None:
    written = rows(API, "action")
    assert written.keys() == set(Action)
    named = {name for cells in written.values() for name in re.findall(r"`([a-z_]+)`", cells[0])}
    assert named == set(Why)


def test_every_metric_that_is_counted_is_in_the_readme_and_no_other() -> None:
    sources = [path.read_text() for path in (ROOT / "layers/common/sitebackup").rglob("*.py")]
    counted = {
        name
        for text in sources
        for name in re.findall(r'(?:\bcount|\btimed|single_metric|add_metric)\(\s*"(\w+)"', text)
        + re.findall(r'Action\.[A-Z]+: "(\w+)"', text)
    }
    written = {name for first in rows(README, "metric") for name in re.findall(r"[A-Z]\w+", first)}
    assert written == counted


def test_every_alarm_is_in_the_operations_table_and_on_the_dashboard() -> None:
    resources = parse((ROOT / "infrastructure/monitoring.yaml").read_text())["Resources"]
    alarms = {name for name, each in resources.items() if each["Type"] == "AWS::CloudWatch::Alarm"}
    assert rows((ROOT / "docs/operations.md").read_text(), "alarm").keys() == alarms
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


def test_json_in_the_readme_can_be_read() -> None:
    blocks = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        json.loads(block)
