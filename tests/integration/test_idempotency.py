"""One Idempotency-Key, one job: the same request again answers it, whatever has changed in between."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from local.services.service import Service
from sitebackup.backup.create_job import CreateBackup
from sitebackup.domain.change import Change
from sitebackup.domain.errors import BadRequest, IdempotencyKeyReused
from sitebackup.domain.job import Job
from sitebackup.domain.provider import Provider
from tests.builders import BY_SERVICE
from tests.integration.real_stack import Stack, an_id

PROVIDERS = {name: Provider(name=name, export_url="http://127.0.0.1:1/") for name in ("site", "db", "media")}


@pytest.fixture
def stack(mongo: Service) -> Iterator[Stack]:
    stack = Stack(mongo.address, None, f"idempotency-{uuid4().hex}")
    yield stack
    stack.close()


def post(stack: Stack, request: CreateBackup, *known: str, key: str | None = "nightly") -> Job:
    """With these as the deployment's providers."""
    create_job = replace(stack.create_job(), providers={name: PROVIDERS[name] for name in known})
    return create_job(BY_SERVICE, request, key)


@pytest.mark.parametrize("after", [("site",), ("site", "db", "media"), ("media",)], ids=" ".join)
@pytest.mark.parametrize("named", [None, ["site", "db"]], ids=["all", "named"])
def test_a_repeat_is_the_same_request_after_the_providers_have_changed(
    stack: Stack, named: list[str] | None, after: tuple[str, ...]
) -> None:
    request = CreateBackup(user_id=an_id(), site_id=an_id(), providers=named)
    first = post(stack, request, "site", "db")
    again = post(stack, request, *after)
    assert (again.id, list(again.tasks)) == (first.id, ["site", "db"])


def test_a_repeat_is_the_same_request_after_its_job_has_changed(stack: Stack) -> None:
    """What had expired and was undeleted no longer has an expiry."""
    request = CreateBackup(user_id=an_id(), site_id=an_id(), expires_after_days=1)
    first = post(stack, request, "site")
    stack.change_job().cancel(BY_SERVICE, first.id)
    stored = stack.recorder.apply(first.id, lambda job, moment: Change(job.replace(expires_after_days=None)))
    assert stored is not None
    stack.pass_time(timedelta(days=1))
    assert post(stack, request, "site").id == first.id


def test_the_order_of_the_providers_says_nothing(stack: Stack) -> None:
    request = CreateBackup(user_id=an_id(), site_id=an_id(), providers=["site", "db"])
    first = post(stack, request, "site", "db")
    assert post(stack, request.replace(providers=["db", "site"]), "site", "db").id == first.id


@pytest.mark.parametrize(
    "change",
    [
        {"site_id": "f" * 24},
        {"providers": ["site"]},
        {"providers": None},
        {"max_bytes": 1},
        {"expires_after_days": 2},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("known", [("site", "db"), ("db",)], ids=["known", "gone"])
def test_another_request_under_the_key_is_refused(
    stack: Stack, change: dict[str, object], known: tuple[str, ...]
) -> None:
    """Also where it names all providers that there are, and the first one left that open.

    Its job is named if it is of the same site: a token may be for some of the user's sites only.
    """
    request = CreateBackup(user_id=an_id(), site_id=an_id(), providers=["site", "db"], expires_after_days=1)
    first = post(stack, request, "site", "db")
    with pytest.raises(IdempotencyKeyReused) as raised:
        post(stack, request.replace(**change), *known)
    assert raised.value.members == ({} if "site_id" in change else {"jobId": first.id})


def test_a_provider_that_is_not_known_is_refused_without_a_first_request(stack: Stack) -> None:
    request = CreateBackup(user_id=an_id(), site_id=an_id(), providers=["db"])
    for key in ("nightly", None):
        with pytest.raises(BadRequest, match=r"^providers\[0\]: no provider 'db'; there are: site$"):
            post(stack, request, "site", key=key)


@pytest.mark.parametrize("key", ["", "k" * 256, "line\nfeed", "\x00", "n\u00e4chtlich", "\ud800"])
def test_a_key_is_printable_ascii(stack: Stack, key: str) -> None:
    with pytest.raises(BadRequest, match=r"^Idempotency-Key: must have 1 to 255 printable ASCII characters$"):
        post(stack, CreateBackup(user_id=an_id(), site_id=an_id()), "site", key=key)
