"""What an operator sends to the catalogue's functions is checked, and the commands go on until all is done."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import parse_qs

import pytest
from botocore.exceptions import ReadTimeoutError

from local import catalog
from local.paths import ROOT
from sitebackup.catalog.check_catalog import Check
from sitebackup.catalog.rebuild_catalog import Rebuild
from sitebackup.domain.errors import Permanent, RepositoryUnavailable, Transient
from sitebackup.domain.model import Model
from sitebackup.domain.reason import Code
from sitebackup.entrypoints.direct import answer
from tests.builders import NOW

BEFORE = "2030-01-31T12:00:00Z"


def echo(request: Model, deadline: datetime) -> Model:
    assert deadline == NOW
    return request


@pytest.mark.parametrize(
    ("kind", "event", "detail"),
    [
        (Rebuild, {}, "before: required"),
        (Rebuild, [], "event: must be a JSON object"),
        (Rebuild, {"before": "yesterday"}, "before: must be the time when the database was lost, like"),
        (Rebuild, {"before": "2030-01-31T12:00:00"}, "before: must be the time when the database was lost"),
        (
            Rebuild,
            {"before": BEFORE, "marker": "begin"},
            "marker: must be left out, or as the last answer had it",
        ),
        (Rebuild, {"before": BEFORE, "marker": "jobs:\n"}, "marker: must be left out"),
        (Rebuild, {"before": BEFORE, "marker": "jobs:" + 1001 * "x"}, "marker: must be left out"),
        (Rebuild, {"before": BEFORE, "marker": None}, "marker: must be left out"),
        (Rebuild, {"before": BEFORE, "prefix": "6F"}, "prefix: must be up to 24 hex digits in lower case"),
        (Check, {"prefix": "catalog"}, "prefix: must be up to 24 hex digits in lower case"),
        (Rebuild, {"before": BEFORE, "after": 1}, "after: unknown field"),
        (Check, {"marker": 7}, "marker: must be left out, or as the last answer had it"),
        (Check, {"marker": "jobs:"}, "marker: must be left out"),
        (Check, {"before": BEFORE}, "before: unknown field"),
    ],
)
def test_an_event_that_is_wrong_is_refused_by_its_field(kind: type[Model], event: Any, detail: str) -> None:
    refused = answer(event, kind, echo, NOW)
    assert (refused["status"], refused["type"]) == (400, "bad-request")
    assert refused["detail"].startswith(detail)


def test_an_event_that_is_right_is_carried_out() -> None:
    asked = {"before": BEFORE, "marker": "schedules:20300131T000000Z/" + "a" * 24}
    assert answer(asked, Rebuild, echo, NOW) == {**asked}
    assert Rebuild(before=datetime(2030, 1, 31, 12, tzinfo=UTC)).marker == "jobs:"
    assert answer({}, Check, lambda request, deadline: request.replace(marker="bucket:x"), NOW) == {
        "marker": "bucket:x"
    }


@pytest.mark.parametrize("error", [RepositoryUnavailable("It is away."), Transient("It is away.")])
def test_what_does_not_answer_is_a_503(error: Exception) -> None:
    def away(request: Model, deadline: datetime) -> Model:
        raise error

    told = answer({}, Check, away, NOW)
    assert (told["status"], told["type"], told["detail"]) == (503, "unavailable", "It is away.")


def test_what_s3_refuses_fails_the_function() -> None:
    def refused(request: Model, deadline: datetime) -> Model:
        raise Permanent(Code.STORAGE_REFUSED, "S3 answered AccessDenied.")

    with pytest.raises(Permanent, match="AccessDenied"):
        answer({}, Check, refused, NOW)


class Function:
    """Answers one thing after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[catalog.Json] = []
        self.slept: list[float] = []

    def __call__(self, event: catalog.Json) -> catalog.Json:
        self.asked.append(event)
        next_one: Any = self.answers.pop(0)
        if isinstance(next_one, Exception):
            raise next_one
        answered: catalog.Json = next_one
        return answered


def rebuilt(marker: str | None, **changes: Any) -> catalog.Json:
    counts = {
        "jobs": 3,
        "jobsPresent": 2,
        "schedules": 1,
        "schedulesPresent": 0,
        "limits": 2,
        "limitsPresent": 1,
    }
    return {**counts, "leftOut": [], "pagesLeftOut": [], "marker": marker, **changes}


def checked(marker: str | None, *differences: catalog.Json) -> catalog.Json:
    return {"folders": 5, "objects": 7, "differences": list(differences), "marker": marker}


DIFFERENCE = {"code": "object_missing", "jobId": "j", "key": "u/s/j/db.zip", "detail": "It is not there."}
AWAY = {"status": 503, "type": "unavailable", "title": "", "detail": "MongoDB does not answer."}


def rebuild(function: Function, marker: str = "") -> int:
    return catalog.rebuild(function, BEFORE, marker, sleep=function.slept.append)


def check(function: Function, marker: str = "") -> int:
    return catalog.check(function, marker, sleep=function.slept.append)


def test_a_rebuild_goes_from_marker_to_marker_and_tells_the_sums(capsys: pytest.CaptureFixture[str]) -> None:
    function = Function(rebuilt("jobs:a"), rebuilt("schedules:"), rebuilt(None))
    assert rebuild(function) == 0
    asked = {"before": BEFORE, "prefix": ""}
    assert function.asked == [asked, {**asked, "marker": "jobs:a"}, {**asked, "marker": "schedules:"}]
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == (
        "9 records made, 6 were there; 3 schedules made, 0 were there; "
        "limits of 6 users made, 3 were there; 0 left out"
    )
    assert "should this break off, it goes on with MARKER='schedules:'" in printed
    again = Function(rebuilt(None))
    assert rebuild(again, "schedules:") == 0
    assert again.asked == [{**asked, "marker": "schedules:"}]


@pytest.mark.parametrize("left_out", [{"leftOut": [DIFFERENCE]}, {"pagesLeftOut": ["catalog/schedules/1"]}])
def test_what_a_rebuild_leaves_out_is_shown_and_in_its_exit_code(
    left_out: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert rebuild(Function(rebuilt("jobs:a", **left_out), rebuilt(None))) == catalog.DIFFERS
    printed = capsys.readouterr().out
    assert "u/s/j/db.zip: It is not there." in printed or "catalog/schedules/1" in printed
    assert printed.endswith("1 left out\n")


def test_a_check_shows_each_difference_and_says_so_in_its_exit_code(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check(Function(checked("records:"), checked(None))) == 0
    assert check(Function(checked("records:", DIFFERENCE), checked(None))) == catalog.DIFFERS
    printed = capsys.readouterr().out.splitlines()
    assert "object_missing: u/s/j/db.zip: It is not there." in printed
    assert printed[-1] == "10 folders and 14 recorded objects compared: 1 differences"


@pytest.mark.parametrize("trouble", [AWAY, ReadTimeoutError(endpoint_url="http://lambda")])
def test_what_does_not_answer_is_asked_again_for_a_while(trouble: Any) -> None:
    function = Function(checked("records:"), trouble, trouble, checked(None))
    assert check(function) == 0
    assert function.asked[1:] == [{"marker": "records:", "prefix": ""}] * 3
    assert function.slept == sorted(function.slept) != []
    silent = Function(*[trouble] * 99)
    with pytest.raises(catalog.NotThrough, match="Given up after 6 attempts"):
        check(silent)
    assert len(silent.asked) == 6


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        ([{"status": 400, "detail": "before: required"}], "It was refused: before: required"),
        ([checked("bucket:a"), checked("bucket:a")], "It does not get on; it stands at MARKER='bucket:a'"),
    ],
)
def test_a_command_that_can_not_get_on_says_so(
    answers: list[Any], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert catalog.run(lambda: check(Function(*answers))) == catalog.NOT_THROUGH
    assert sentence in capsys.readouterr().err


def test_nothing_behind_the_invoke_api_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    function = catalog.local_function("http://127.0.0.1:9", "CheckCatalogFunction")
    assert catalog.run(lambda: catalog.check(function, "")) == catalog.NOT_THROUGH
    assert "Is it up? `make up` starts it." in capsys.readouterr().err


class Aws(BaseHTTPRequestHandler):
    """Stands for CloudFormation and Lambda, as far as the commands ask them."""

    invoked: ClassVar[list[tuple[str, Any]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.path == "/":
            asked = parse_qs(body)
            (stack,), (resource,) = asked["StackName"], asked["LogicalResourceId"]
            if stack != "site-backup":
                return self._answer(400, f"<ErrorResponse><Error><Code>ValidationError</Code><Message>Stack "
                                         f"'{stack}' does not exist</Message></Error></ErrorResponse>")  # fmt: skip
            return self._answer(
                200,
                "<DescribeStackResourceResponse><DescribeStackResourceResult><StackResourceDetail>"
                f"<PhysicalResourceId>{stack}-{resource}-1</PhysicalResourceId>"
                "</StackResourceDetail></DescribeStackResourceResult></DescribeStackResourceResponse>",
            )
        self.invoked.append((self.path, json.loads(body)))
        return self._answer(200, json.dumps(checked(None, DIFFERENCE)))

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Aws]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Aws)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    Aws.invoked.clear()
    yield Aws
    server.shutdown()
    server.server_close()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "local", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_function_of_a_stack_on_aws_is_found_and_the_exit_code_is_the_commands(aws: type[Aws]) -> None:
    run = command("catalog-check", "--stack", "site-backup", "--marker", "bucket:a", "--prefix", "6f")
    assert run.returncode == catalog.DIFFERS, run.stderr
    assert "object_missing: u/s/j/db.zip: It is not there." in run.stdout
    path = "/2015-03-31/functions/site-backup-CheckCatalogFunction-1/invocations"
    assert aws.invoked == [(path, {"marker": "bucket:a", "prefix": "6f"})]


def test_a_stack_that_is_not_there_is_told(aws: type[Aws]) -> None:
    run = command("catalog-rebuild", BEFORE, "--stack", "another")
    assert run.returncode == catalog.NOT_THROUGH
    assert "RebuildCatalogFunction of the stack another is not found" in run.stderr
    assert aws.invoked == []
