"""One suite for every PartRepository, the fake among them; then what only MongoDB can show."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from pymongo.database import Database

from local.services import processes
from sitebackup.adapters.mongo.connection import connect
from sitebackup.adapters.mongo.parts import IDS_AT_ONCE, MongoParts
from sitebackup.domain.errors import RepositoryUnavailable
from sitebackup.domain.job import PartWait
from sitebackup.domain.plan import MAX_PARTS
from sitebackup.ports.repositories import PartRepository
from tests.builders import NOW, a_part
from tests.contract.conftest import Client
from tests.fakes.parts import MemoryParts
from tests.tcp_proxy import Forgetting, TcpProxy

ODD_IDS = [
    "u",
    "u:",
    "u:00001",  # its parts lie between those of "u"
    "u;",
    "u/1",
    "u~",
    "2~VmFsdWU.-_=+",
    "\u00e9\U0001f4be",
    "u\uffff",
]


@pytest.fixture
def in_mongo(client: Client, database: Database[dict[str, Any]]) -> MongoParts:
    return MongoParts(client, database.name)


@pytest.fixture(params=["MongoDB", "fake"])
def parts(request: pytest.FixtureRequest) -> PartRepository:
    if request.param == "fake":
        return MemoryParts()
    found: MongoParts = request.getfixturevalue("in_mongo")
    return found


def test_parts_of_any_upload_id_keep_apart(parts: PartRepository) -> None:
    def numbers_of(position: int) -> list[int]:
        return sorted({1, 2, 10, position + 10, MAX_PARTS})

    for position, upload_id in enumerate(ODD_IDS, 1):
        for number in numbers_of(position):
            parts.save(upload_id, a_part(number, length=position), NOW)
    for position, upload_id in enumerate(ODD_IDS, 1):
        numbers = numbers_of(position)
        assert parts.done(upload_id) == [a_part(number, position) for number in numbers]
        assert parts.done(upload_id, range(3, MAX_PARTS + 1)) == parts.done(upload_id)[2:]
        assert [part.number for part in parts.done(upload_id, range(2, 11))] == numbers[1:3]
        assert parts.done(upload_id, range(1, 1)) == []


def test_which_parts_are_done_is_told_for_several_uploads_at_once(parts: PartRepository) -> None:
    for upload_id in ODD_IDS:
        parts.save(upload_id, a_part(3), NOW)
    asked = {(upload_id, number) for upload_id in ODD_IDS for number in (2, 3)}
    assert parts.which_done(asked) == {(upload_id, 3) for upload_id in ODD_IDS}
    assert parts.which_done(set()) == set()


def test_a_part_that_is_saved_again_is_replaced(parts: PartRepository) -> None:
    parts.save("u", a_part(1, length=5), NOW)
    parts.save("u", a_part(1, length=6), NOW)
    assert parts.done("u") == [a_part(1, length=6)]


def test_a_part_that_waits_is_missing_until_it_is_done_and_then_waits_no_more(parts: PartRepository) -> None:
    wait = PartWait(attempt=2, tries=1, next_try_at=NOW)
    parts.save("u", a_part(1), NOW)
    parts.save_wait("u", 3, wait, NOW)
    assert parts.missing("u", range(1, 5)) == {2: PartWait(), 3: wait, 4: PartWait()}
    assert parts.done("u") == parts.done("u", range(1, 5)) == [a_part(1)]
    assert parts.which_done({("u", 1), ("u", 3)}) == {("u", 1)}
    parts.save("u", a_part(3), NOW)
    parts.save_wait("u", 3, wait, NOW)
    parts.end_waits("u", [1, 3])
    assert parts.done("u") == [a_part(1), a_part(3)]
    assert parts.missing("u", range(1, 4)) == {2: PartWait()}


def test_a_part_that_is_sent_again_keeps_its_tries_and_waits_no_more(parts: PartRepository) -> None:
    for number in (1, 2):
        parts.save_wait("u", number, PartWait(attempt=1, tries=3, next_try_at=NOW), NOW)
    parts.end_waits("u", [1, 7])
    assert parts.missing("u", range(1, 3)) == {
        1: PartWait(attempt=1, tries=3),
        2: PartWait(attempt=1, tries=3, next_try_at=NOW),
    }


def test_a_done_part_that_s3_lost_waits(parts: PartRepository) -> None:
    parts.save("u", a_part(1), NOW)
    wait = PartWait(attempt=1, next_try_at=NOW)
    parts.lose("u", 1, wait, NOW)
    assert parts.done("u") == []
    assert parts.missing("u", range(1, 2)) == {1: wait}


def test_more_parts_than_one_command_names_are_asked_for_and_ended(parts: PartRepository) -> None:
    last = IDS_AT_ONCE + 1
    parts.save("u", a_part(1), NOW)
    parts.save_wait("u", last, PartWait(attempt=1, next_try_at=NOW), NOW)
    parts.end_waits("u", range(1, last + 1))
    missing = parts.missing("u", range(1, last + 1))
    assert list(missing) == list(range(2, last + 1))
    assert missing[last] == PartWait(attempt=1)


# --- what only MongoDB can show


CALLS: dict[str, Callable[[PartRepository], object]] = {
    "save": lambda parts: parts.save("v", a_part(1), NOW),
    "save_wait": lambda parts: parts.save_wait("v", 2, PartWait(attempt=1), NOW),
    "end_waits": lambda parts: parts.end_waits("v", [2]),
    "lose": lambda parts: parts.lose("v", 1, PartWait(attempt=1), NOW),
    "done": lambda parts: parts.done("u"),
    "done of a range": lambda parts: parts.done("u", range(1, 9)),
    "missing": lambda parts: parts.missing("u", range(1, 9)),
    "which_done": lambda parts: parts.which_done({("u", 1)}),
}


@pytest.mark.parametrize("how", ["reset", "lose the answer"])
@pytest.mark.parametrize("call", CALLS)
def test_a_dead_connection_costs_no_answer_and_nothing_happens_twice(
    client_behind_proxy: Client,
    database: Database[dict[str, Any]],
    in_mongo: MongoParts,
    proxy: TcpProxy,
    call: str,
    how: Forgetting,
) -> None:
    behind_proxy, fake = MongoParts(client_behind_proxy, database.name), MemoryParts()
    for parts in (fake, behind_proxy):
        parts.save("u", a_part(1), NOW)
    expected = CALLS[call](fake)
    proxy.forget(how)
    assert CALLS[call](behind_proxy) == expected
    for upload_id in ("u", "v"):
        assert in_mongo.done(upload_id) == fake.done(upload_id)
        assert in_mongo.missing(upload_id, range(1, 9)) == fake.missing(upload_id, range(1, 9))


def test_a_server_that_is_not_there_is_told_within_seconds() -> None:
    client = connect(f"mongodb://127.0.0.1:{processes.free_port()}/?directConnection=true")
    parts = MongoParts(client, "none")
    with ThreadPoolExecutor(len(CALLS)) as pool:
        for future in [pool.submit(call, parts) for call in CALLS.values()]:
            with pytest.raises(RepositoryUnavailable, match="MongoDB does not answer"):
                future.result(timeout=20)
    client.close()
