"""What every HTTP function shares: a wrong request is told what is wrong, and each error has its status."""

import base64
import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEventV2

from sitebackup.backup.create_job import CreateBackup
from sitebackup.domain.errors import (
    ActiveJob,
    BadRequest,
    BusUnavailable,
    Conflict,
    IdempotencyKeyReused,
    MissingScope,
    NoCaller,
    NotFound,
    NotYourUser,
    NoUser,
    RepositoryUnavailable,
    RequestError,
    StateForbids,
    TooLate,
    Unavailable,
)
from sitebackup.domain.model import Id, Model, ProviderName
from sitebackup.domain.plan import MAX_OBJECT_SIZE
from sitebackup.domain.principal import Access, Claims, Scope
from sitebackup.entrypoints import http, queries
from sitebackup.entrypoints.parsing import (
    parse_body,
    parse_query,
    parse_time,
    parse_variable,
    reject_unknown,
)
from sitebackup.entrypoints.problems import PROBLEMS
from sitebackup.restore.create_restore import RestoreRequest
from sitebackup.schedules.manage_schedule import PutSchedule

USER, SITE = "a" * 24, "b" * 24
NUMBERS = {"wait", "since"}
AN_ID = "24 hex digits in lower case"
FIVE_MEGABYTES = 5_000_000
NAMES_OF_FIVE_MEGABYTES = [
    letter * (FIVE_MEGABYTES // len(letter.encode())) for letter in "x\u00fc\U0001f600"
]
"""As names of fields. Lambda lets a request and an answer have 6 MB."""
SMALL_ANSWER = 2000
"""Characters."""


def an_event(body: str | None = None, path: str = "/", encoded: bool = False) -> dict[str, Any]:
    event = {
        "version": "2.0",
        "routeKey": f"GET {path}",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"content-type": "application/json"},
        "requestContext": {
            "authorizer": {"iam": {"userArn": "arn:aws:iam::123456789012:user/tests"}},
            "http": {"method": "GET", "path": path, "sourceIp": "127.0.0.1"},
            "stage": "$default",
            "requestId": "r",
        },
        "isBase64Encoded": encoded,
    }
    return event if body is None else event | {"body": body}


def decode(body: str | None, encoded: bool = False) -> CreateBackup:
    return parse_body(APIGatewayProxyEventV2(an_event(body, encoded=encoded)), CreateBackup)


GOOD = {"userId": USER, "siteId": SITE}


def test_a_body_with_its_required_fields_is_decoded() -> None:
    assert decode(json.dumps(GOOD)) == CreateBackup(user_id=USER, site_id=SITE)


def test_a_body_in_base64_is_decoded_like_plain_text() -> None:
    """As from `curl -d` without a Content-Type, which says that it is a form."""
    assert decode(base64.b64encode(json.dumps(GOOD).encode()).decode(), encoded=True) == decode(
        json.dumps(GOOD)
    )


@pytest.mark.parametrize("body", ["/w==", "a"])
def test_a_body_in_base64_that_is_no_text_is_refused(body: str) -> None:
    with pytest.raises(BadRequest, match=r"^body: not valid UTF-8$"):
        decode(body, encoded=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"userId": None}, f"userId: must be {AN_ID}"),
        ({"userId": 7}, f"userId: must be {AN_ID}"),
        ({"siteId": "B" * 24}, f"siteId: must be {AN_ID}"),
        ({"siteId": "b" * 23}, f"siteId: must be {AN_ID}"),
        ({"siteId": SITE + "\n"}, f"siteId: must be {AN_ID}"),
        ({"providers": []}, "providers: must be a list of names of providers, with at least one"),
        ({"providers": ["site", "Db"]}, "providers[1]: must be the name of a provider"),
        ({"providers": [["site"]]}, "providers[0]: must be the name of a provider"),
        ({"providers": "site"}, "providers: must be a list of names of providers, with at least one"),
        ({"expiresAfterDays": 0}, "expiresAfterDays: must be a whole number of days from 1 to 3650"),
        ({"expiresAfterDays": 3651}, "expiresAfterDays: must be a whole number of days from 1 to 3650"),
        ({"expiresAfterDays": True}, "expiresAfterDays: must be a whole number of days from 1 to 3650"),
        ({"maxBytes": 0}, f"maxBytes: must be a whole number of bytes from 1 to {MAX_OBJECT_SIZE}"),
        ({"maxBytes": MAX_OBJECT_SIZE + 1}, "maxBytes: must be a whole number of bytes"),
        ({"maxBytes": 10**40}, "maxBytes: must be a whole number of bytes"),
        ({"colour": 1}, "colour: unknown field"),
    ],
)
def test_a_wrong_field_is_named_with_what_it_must_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as raised:
        decode(json.dumps(GOOD | changes))
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (None, "body: not valid JSON"),
        ("", "body: not valid JSON"),
        ("{", "body: not valid JSON"),
        ("null", "body: must be a JSON object"),
        ("[]", "body: must be a JSON object"),
        ('{"userId": x}', "body: not valid JSON: invalid character (byte 11)"),
        ('"userId"', "body: must be a JSON object"),
        ("{}", "userId: required"),
        ('{"a`b": 1}', "a`b: unknown field"),
        (json.dumps({"userId": USER}), "siteId: required"),
    ],
)
def test_a_wrong_body_is_refused_with_what_is_wrong_about_it(body: str | None, message: str) -> None:
    with pytest.raises(BadRequest) as raised:
        decode(body)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("kind", [CreateBackup, PutSchedule, RestoreRequest])
def test_every_field_of_a_body_has_a_description_for_errors(kind: type[Model]) -> None:
    """Something that no field takes is refused with it, and so is a list of that."""
    wrong = {"of": "no use"}
    for field in msgspec.structs.fields(kind):
        event = an_event(json.dumps({field.encode_name: wrong}))
        with pytest.raises(BadRequest, match=f"^{field.encode_name}: must be [a-z0-9]"):
            parse_body(APIGatewayProxyEventV2(event), kind)
    with pytest.raises(BadRequest, match=r"^providers\[0\]: must be the name of a provider$"):
        parse_body(APIGatewayProxyEventV2(an_event(json.dumps({"providers": [wrong]}))), kind)


@pytest.mark.parametrize("name", NAMES_OF_FIVE_MEGABYTES, ids=["1 byte", "2 bytes", "4 bytes"])
def test_an_answer_stays_small_whatever_a_field_is_called(name: str) -> None:
    with pytest.raises(BadRequest, match=r"unknown field$") as raised:
        decode(json.dumps({name: 1}, ensure_ascii=False))
    assert len(json.dumps(str(raised.value))) < SMALL_ANSWER


def test_a_field_that_comes_twice_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"^siteId: comes twice$"):
        decode(f'{{"userId": "{USER}", "siteId": "{USER}", "siteId": "{SITE}"}}')


@pytest.mark.parametrize(
    "value", ["", "a" * 23, "a" * 25, "A" * 24, "g" * 24, "a" * 24 + "\n", "\u0661" * 24]
)
def test_an_id_that_is_not_24_hex_digits_in_lower_case_is_refused(value: str) -> None:
    assert parse_variable(USER, "jobId", Id) == USER
    with pytest.raises(BadRequest, match=r"^jobId: must be 24 hex digits in lower case$"):
        parse_variable(value, "jobId", Id)


@pytest.mark.parametrize("value", ["", "Site", "-site", "site\n", "s" * 33, "s\u00efte", "1"])
def test_a_name_that_no_provider_can_have_is_refused(value: str) -> None:
    assert parse_variable("site-2", "provider", ProviderName) == "site-2"
    with pytest.raises(BadRequest, match=r"^provider: must be the name of a provider$"):
        parse_variable(value, "provider", ProviderName)


@pytest.mark.parametrize("value", ["", "-1", "26", "1.0", "1e1", " 1", "²", "\u0661", "x", "9" * 5000])
def test_a_number_that_is_not_whole_or_out_of_its_bounds_is_refused(value: str) -> None:
    with pytest.raises(BadRequest, match=r"^wait: must be a whole number from 0 to 25$"):
        parse_query({"wait": value}, queries.Wait, NUMBERS)


def test_a_number_within_its_bounds_is_read_and_an_absent_one_has_its_default() -> None:
    assert parse_query({"wait": "25", "since": "0"}, queries.Wait, NUMBERS) == queries.Wait(wait=25, since=0)
    assert parse_query({"limit": "7"}, queries.Jobs, {"limit"}).limit == 7
    assert parse_query({}, queries.Jobs, {"limit"}).limit == 20
    digits = "1" * 24
    assert parse_query({"siteId": digits}, queries.Jobs, {"limit"}).site_id == digits


@pytest.mark.parametrize(
    ("query", "kind", "message"),
    [
        ({"siteId": "A" * 24}, queries.Jobs, f"siteId: must be {AN_ID}"),
        ({"siteId": "null"}, queries.Jobs, f"siteId: must be {AN_ID}"),
        (
            {"status": "broken"},
            queries.Jobs,
            "status: must be one of pending, running, done, failed, cancelled, deleted",
        ),
        (
            {"status": "deleted"},
            queries.Restores,
            "status: must be one of pending, backing_up, running, done, failed, cancelled",
        ),
        ({"cursor": "a" * 24}, queries.Schedules, "cursor: must be 48 hex digits in lower case"),
        ({"damaged": "yes"}, queries.Damaged, "damaged: must be allow"),
        ({"limit": "101"}, queries.Retention, "limit: must be a whole number from 1 to 100"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_it_must_be(
    query: dict[str, str], kind: type[Model], message: str
) -> None:
    with pytest.raises(BadRequest) as raised:
        parse_query(query, kind, {"limit"})
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "value",
    [
        *[
            "",
            "now",
            "2030-01-31",
            "2030-01-31T12:00:00",
            "2030-13-01T00:00:00Z",
            "0001-01-01T00:00:00+23:59",
        ],
        *["2030-01-31T12:00:00Z\n", "2030-01-31x12:00:00Z", "20300131T120000Z", "2030-W05-4T12:00:00Z"],
        *["9999-12-31T23:59:59-00:01", "2030-01-31T12:00:00+24:00", "203\u0660-01-31T12:00:00Z"],
    ],
)
def test_a_time_that_rfc_3339_does_not_know_is_refused(value: str) -> None:
    with pytest.raises(BadRequest, match=r"^at: must "):
        parse_time(value, "at")


@pytest.mark.parametrize(
    "value",
    [
        *["2030-01-31T12:00:00Z", "2030-01-31T13:00:00+01:00", "2030-01-31T13:00:00 01:00"],
        *["2030-01-31t12:00:00z", "2030-01-31T12:00:00.0009999999Z"],
    ],
)
def test_a_time_of_any_offset_is_read_as_utc_in_milliseconds(value: str) -> None:
    assert parse_time(value, "at") == datetime(2030, 1, 31, 12, tzinfo=UTC)


def test_an_unknown_query_parameter_is_refused_with_those_that_there_are() -> None:
    reject_unknown({"wait": "1"}, queries.Wait)
    with pytest.raises(BadRequest, match=r"^siteid: unknown parameter; there are: wait, since$"):
        reject_unknown({"siteid": "1"}, queries.Wait)
    with pytest.raises(BadRequest, match=r"^wait: unknown parameter; there are none here$"):
        reject_unknown({"wait": "1"}, None)


class Fine(Model, frozen=True, kw_only=True):
    fine: bool


def answer(error: Exception | None, path: str = "/thing") -> tuple[dict[str, Any], dict[str, Any]]:
    api = http.Api(Claims())

    @api.route("GET /thing", Scope.READ, {200: Fine})
    def thing(access: Access) -> Response[str]:
        if error:
            raise error
        return http.ok(Fine(fine=True))

    response = api.resolve(an_event(path=path), SimpleNamespace())  # type: ignore[arg-type]
    return response, json.loads(response["body"])


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (BadRequest("siteId: required"), 400, "bad-request"),
        (NoCaller("Nobody."), 403, "no-caller"),
        (NoUser("The claim."), 403, "no-user"),
        (NotYourUser("userId: another"), 403, "not-your-user"),
        (MissingScope("No.", scope="backup:read"), 403, "missing-scope"),
        (NotFound("There is no backup."), 404, "not-found"),
        (ActiveJob("Still running.", jobId=USER), 409, "active-job"),
        (StateForbids("No."), 409, "state-forbids"),
        (TooLate("No."), 409, "too-late"),
        (IdempotencyKeyReused("No."), 422, "idempotency-key-reused"),
        (Conflict("busy"), 503, "busy"),
        (RepositoryUnavailable("MongoDB does not answer."), 503, "unavailable"),
        (BusUnavailable("Kafka does not answer."), 503, "unavailable"),
        (Unavailable("STS can't be reached."), 503, "unavailable"),
    ],
)
def test_each_error_is_answered_with_its_status_and_type(error: Exception, status: int, kind: str) -> None:
    response, problem = answer(error)
    assert response["statusCode"] == problem["status"] == status
    assert (problem["type"], problem["detail"]) == (kind, str(error))
    assert response["headers"]["Content-Type"] == "application/problem+json"
    assert ("Retry-After" in response["headers"]) == (status == 503)
    if isinstance(error, RequestError):
        assert problem.items() >= error.members.items()


def test_an_unexpected_error_is_answered_without_its_message() -> None:
    response, problem = answer(ValueError("mongodb://user:password@host"))
    assert (response["statusCode"], problem["type"]) == (500, "internal")
    assert "password" not in response["body"]


def test_an_unknown_route_is_not_found() -> None:
    response, problem = answer(None, path="/nothing")
    assert (response["statusCode"], problem["type"]) == (404, "not-found")
    assert response["headers"]["Content-Type"] == "application/problem+json"


def test_an_answer_tells_caches_to_keep_nothing() -> None:
    response, body = answer(None)
    assert (response["statusCode"], body) == (200, {"fine": True})
    assert response["headers"]["Cache-Control"] == "no-store"


def test_a_redirect_says_where_to_and_nothing_else_and_is_kept_by_no_cache() -> None:
    api = http.Api(Claims())

    @api.route("GET /thing", Scope.READ, {200: Fine})
    def thing(access: Access) -> Response[str]:
        return http.found("https://example.com/object?X-Amz-Signature=0")

    response = api.resolve(an_event(path="/thing"), SimpleNamespace())  # type: ignore[arg-type]
    assert (response["statusCode"], response.get("body")) == (302, "")
    assert response["headers"] == {
        "Location": "https://example.com/object?X-Amz-Signature=0",
        "Cache-Control": "no-store",
    }


def test_every_problem_has_a_type_of_its_own() -> None:
    assert len({problem.type for problem in PROBLEMS.values()}) == len(PROBLEMS)
    assert all(msgspec.json.encode(problem.title) for problem in PROBLEMS.values())
