"""Who calls is what an authorizer has verified, and reaches no more than that says."""

import ast
from pathlib import Path
from typing import Any

import pytest

from sitebackup.domain.errors import (
    BadRequest,
    MissingScope,
    NoCaller,
    NotFound,
    NotYourUser,
    NoUser,
    ServiceOnly,
)
from sitebackup.domain.principal import Access, Claims, Principal, Scope, Service, User
from sitebackup.entrypoints.principal import principal_of

ROOT = Path(__file__).parents[2]
LAYER = ROOT / "layers/common/sitebackup"
ME, OTHER = "a" * 24, "b" * 24
SITE, ELSEWHERE = "1" * 24, "2" * 24
ARN = "arn:aws:sts::123456789012:assumed-role/platform/session"
ALL_SCOPES = frozenset(Scope)


def jwt(**claims: Any) -> dict[str, Any]:
    return {"authorizer": {"jwt": {"claims": {"sub": ME, **claims}, "scopes": None}}}


def test_a_call_that_is_signed_with_iam_is_a_services() -> None:
    assert principal_of({"authorizer": {"iam": {"userArn": ARN}}}, Claims()) == Service(ARN)


@pytest.mark.parametrize("name", ["scope", "scp"])
@pytest.mark.parametrize("scopes", ["backup:read backup:delete", "[backup:read backup:delete]"])
def test_a_token_is_its_users_with_the_scopes_that_it_holds(name: str, scopes: str) -> None:
    expected = User(ME, None, frozenset({"backup:read", "backup:delete"}))
    assert principal_of(jwt(**{name: scopes}), Claims()) == expected


def test_the_user_is_in_the_claim_that_is_configured() -> None:
    assert principal_of(jwt(account=OTHER), Claims(user="account")) == User(OTHER, None, frozenset())


@pytest.mark.parametrize(
    ("claim", "sites"),
    [
        (f"[{SITE} {ELSEWHERE}]", {SITE, ELSEWHERE}),
        (f"[{SITE}, {ELSEWHERE}]", {SITE, ELSEWHERE}),
        (f"{SITE} {ELSEWHERE}", {SITE, ELSEWHERE}),
        (SITE, {SITE}),
        ("[]", set()),
        ("", set()),
        (None, set()),
        ([SITE], set()),
    ],
)
def test_a_token_is_for_the_sites_that_its_claim_lists_and_for_none_without_it(
    claim: object, sites: set[str]
) -> None:
    found = principal_of(jwt(sites=claim), Claims(sites="sites"))
    assert isinstance(found, User)
    assert found.sites == frozenset(sites)


@pytest.mark.parametrize("user", [None, "", "a" * 23, "A" * 24, ME + "\n", f"[{ME}]", 7, [ME]])
def test_a_token_whose_claim_is_no_id_has_no_user(user: object) -> None:
    with pytest.raises(NoUser, match="claim 'sub'"):
        principal_of(jwt(sub=user), Claims())


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"authorizer": None},
        {"authorizer": {}},
        {"authorizer": {"iam": {}}},
        {"authorizer": {"iam": {"userArn": ""}}},
        {"authorizer": {"iam": None}},
        {"authorizer": {"jwt": {}}},
        {"authorizer": {"jwt": {"claims": None}}},
        {"authorizer": {"lambda": {"userId": ME}}},
        {"authorizer": {"iam": {"userArn": ARN}, **jwt()["authorizer"]}},
        {"authorizer": {"claims": {"sub": ME}}},
        {"accountId": "123456789012", "identity": {"userArn": ARN}},
    ],
    ids=str,
)
def test_without_a_caller_that_an_authorizer_has_verified_it_is_closed(context: dict[str, Any]) -> None:
    with pytest.raises(NoCaller):
        principal_of(context, Claims())


@pytest.mark.parametrize("scope", Scope)
def test_a_user_reaches_nothing_without_the_scope_which_the_refusal_names(scope: Scope) -> None:
    User(ME, None, frozenset({scope})).may(scope)
    with pytest.raises(MissingScope, match=f"no scope {scope}") as raised:
        User(ME, None, ALL_SCOPES - {scope}).may(scope)
    assert raised.value.members == {"scope": scope}


SERVICE: Principal = Service(ARN)
USER: Principal = User(ME, None, ALL_SCOPES)
OF_ONE_SITE: Principal = User(ME, frozenset({SITE}), ALL_SCOPES)


@pytest.mark.parametrize(
    ("principal", "user_id", "sites", "sees"),
    [
        (SERVICE, ME, [SITE], True),
        (SERVICE, OTHER, [ELSEWHERE], True),
        (USER, ME, [SITE, ELSEWHERE], True),
        (USER, OTHER, [SITE], False),
        (OF_ONE_SITE, ME, [SITE], True),
        (OF_ONE_SITE, ME, [ELSEWHERE], False),
        (OF_ONE_SITE, ME, [SITE, ELSEWHERE], False),
        (OF_ONE_SITE, OTHER, [SITE], False),
    ],
)
def test_a_caller_sees_what_is_of_their_user_and_concerns_only_their_sites(
    principal: Principal, user_id: str, sites: list[str], sees: bool
) -> None:
    access = principal.may(Scope.READ)
    assert access.sees(user_id, sites) is sees
    if sees:
        access.check(user_id, *sites)
    else:
        with pytest.raises((NotYourUser, NotFound)):
            access.check(user_id, *sites)


def test_a_call_for_another_user_is_told_so_before_anything_is_said_of_its_sites() -> None:
    with pytest.raises(NotYourUser, match=r"^userId: "):
        OF_ONE_SITE.may(Scope.WRITE).check(OTHER, ELSEWHERE)
    with pytest.raises(NotFound, match=f"^There is no site {ELSEWHERE}.$"):
        OF_ONE_SITE.may(Scope.WRITE).check(ME, ELSEWHERE)


def test_a_user_need_not_name_themselves_and_may_name_nobody_else() -> None:
    access = USER.may(Scope.READ)
    for named in (None, ME):
        assert access.one_user(named) == access.any_user(named) == ME
    for ask in (access.one_user, access.any_user):
        with pytest.raises(NotYourUser):
            ask(OTHER)


def test_a_service_names_the_user_where_one_is_needed() -> None:
    access = SERVICE.may(Scope.READ)
    assert access.one_user(OTHER) == access.any_user(OTHER) == OTHER
    assert access.any_user(None) is None
    with pytest.raises(BadRequest, match=r"^userId: required"):
        access.one_user(None)


def test_an_access_says_whose_it_is_and_a_user_is_told_what_a_service_alone_may_do() -> None:
    user, service = User(ME, None, ALL_SCOPES), Service(ARN)
    assert user.may(Scope.READ).principal is user
    assert service.may(Scope.READ).principal is service
    service.may(Scope.WRITE).check_service()
    with pytest.raises(ServiceOnly) as refused:
        user.may(Scope.WRITE).check_service()
    assert str(refused.value) == "Only a service may do this."


# --- nobody gets round it


def calls(path: Path) -> list[tuple[str, ast.Call]]:
    """The calls in a file, with the name of the function or method."""
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return [(ast.unparse(call.func), call) for call in found]


def test_only_a_principal_makes_an_access() -> None:
    makers = {
        path.relative_to(ROOT).as_posix()
        for path in [*LAYER.rglob("*.py"), *(ROOT / "functions").rglob("*.py")]
        for name, _ in calls(path)
        if name.split(".")[-1] == Access.__name__
    }
    assert makers == {"layers/common/sitebackup/domain/principal.py"}


FOR_CALLERS = {
    path
    for path in LAYER.rglob("*.py")
    if path.parent.name not in ("domain", "adapters", "mongo", "entrypoints", "ports")
    and any(
        isinstance(node, ast.ImportFrom) and node.module == "domain.principal"
        for node in ast.walk(ast.parse(path.read_text()))
    )
}
"""The use cases that take an Access."""
UNFILTERED = ("get", "page", "version")


def test_a_use_case_of_callers_makes_no_query_without_an_access() -> None:
    """Those of a backup are the only ones that read again what they have just stored, by its own id."""
    names = {path.stem for path in FOR_CALLERS}
    assert {
        "create_job",
        "get_job",
        "change_job",
        "create_download",
        "create_restore",
        "change_restore",
    } <= names
    own = {("create_restore", "restore.id"), ("change_restore", "restore_id")}
    for path in FOR_CALLERS:
        for name, call in calls(path):
            owner, _, method = name.rpartition(".")
            if method in UNFILTERED and owner.endswith(("jobs", "restores", "schedules", "documents")):
                assert (path.stem, ast.unparse(call.args[0])) in own, f"{path}: {ast.unparse(call)}"


def test_every_route_asks_for_the_access_of_its_caller_and_makes_none_itself() -> None:
    """A handler has no other access than that of its route's scope."""
    routes = 0
    for path in (ROOT / "functions").glob("*/app.py"):
        tree = ast.parse(path.read_text())
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "may"]
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and any(
                ast.unparse(each).startswith("api.route") for each in node.decorator_list
            ):
                routes += 1
                assert ast.unparse(node.args.args[0]) == "access: Access", f"{path}: {node.name}"
    assert routes > 20
