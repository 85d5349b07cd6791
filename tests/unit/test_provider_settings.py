"""The providers' settings that are kept elsewhere: when they are read, which version is in use, what is refused."""

import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from sitebackup.adapters.provider_settings import (
    MAX_VERSIONS,
    REFRESH_SECONDS,
    RETRY_SECONDS,
    UNKNOWN_READS,
    ProviderSettings,
    Version,
)
from sitebackup.domain.errors import SettingsUnavailable
from sitebackup.telemetry import metrics

LIMIT_SECONDS = 20.0
SHORTLY = 0.01


def listed(*names: str) -> str:
    return json.dumps([{"name": name, "exportUrl": f"http://{name}"} for name in names])


class Store:
    """A text with its versions, which is down when a test says so."""

    source = "ssm:/providers"

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.down = False
        self.history_down = False
        self.unreadable = ""
        """Why the newest version can't be read."""
        self.read: list[str] = []
        """The ids of the versions that were read."""

    def newest(self) -> Version:
        self.read.append(str(len(self.texts)))
        if self.down:
            raise SettingsUnavailable("The store is down.")
        return Version(str(len(self.texts)), self.texts[-1].encode(), self.unreadable)

    def earlier(self, newest: Version) -> Iterator[Version]:
        for number in range(int(newest.id) - 1, 0, -1):
            if self.history_down:
                raise SettingsUnavailable("The history is down.")
            self.read.append(str(number))
            yield Version(str(number), self.texts[number - 1].encode())


class World:
    """Settings from a store, at a time that only the test moves."""

    def __init__(self, *texts: str) -> None:
        self.now = 1000.0
        self.store = Store(*texts)
        self.settings = ProviderSettings(self.store, lambda: self.now)

    def names(self) -> list[str]:
        return list(self.settings)


@pytest.fixture(autouse=True)
def _fresh_metrics() -> Iterator[None]:
    metrics.clear_metrics()
    yield
    metrics.clear_metrics()


def counted(name: str) -> int:
    return int(sum(metrics.provider.metric_set.get(name, {}).get("Value", [])))


def refusals(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Version and error of each, as they were logged."""
    return [
        (record.__dict__["version"], record.__dict__["error"])
        for record in caplog.records
        if record.message == "provider settings refused" and record.levelno == logging.ERROR
    ]


def test_nothing_is_read_before_it_is_needed_and_then_once_a_minute() -> None:
    world = World(listed("site"))
    assert world.store.read == []
    assert world.settings["site"].export_url == "http://site"
    assert (len(world.settings), world.names(), "site" in world.settings) == (1, ["site"], True)
    world.store.texts.append(listed("site", "db"))
    world.now += REFRESH_SECONDS - SHORTLY
    assert (world.names(), world.store.read) == (["site"], ["1"])
    world.now += SHORTLY
    assert (world.names(), world.store.read) == (["site", "db"], ["1", "2"])
    assert world.settings["db"].export_url == "http://db"


def test_a_name_that_is_unknown_is_looked_for_in_a_newer_version_at_once() -> None:
    world = World(listed("site"))
    assert world.names() == ["site"]
    world.store.texts.append(listed("site", "db"))
    assert "db" in world.settings
    assert world.store.read == ["1", "2"]
    world.store.texts.append(listed("site", "db", "shop"))
    assert world.settings.get("shop") is not None
    with pytest.raises(KeyError):
        world.settings["media"]
    assert world.store.read == ["1", "2", "3", "3"]


def test_unknown_names_have_the_settings_read_so_many_times_a_minute_at_most() -> None:
    world = World(listed("site"))
    for _ in range(2):
        world.store.read.clear()
        for _ in range(3 * UNKNOWN_READS):
            assert "db" not in world.settings
        assert len(world.store.read) == 1 + UNKNOWN_READS
        world.now += REFRESH_SECONDS


def test_a_new_version_that_is_wrong_is_refused_by_its_field_and_the_last_good_one_stays_in_use(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(listed("site"))
    assert world.names() == ["site"]
    world.store.texts.append('[{"name": "site", "exportUrl": "site.example.com"}]')
    for _ in range(2):
        world.now += REFRESH_SECONDS
        assert world.settings["site"].export_url == "http://site"
    ((version, error),) = refusals(caplog)
    assert version == "2"
    assert error.startswith("providers[0].exportUrl: must be a URL")
    assert counted("ProviderSettingsRefused") == 2, "as often as it was found"
    world.store.texts.append(listed("db"))
    world.now += REFRESH_SECONDS
    assert world.names() == ["db"]
    assert (len(refusals(caplog)), counted("ProviderSettingsRefused")) == (1, 2)


def test_who_has_none_yet_takes_the_newest_version_that_is_right(caplog: pytest.LogCaptureFixture) -> None:
    world = World(listed("older"), listed("site"), "[]", listed("site", "site"))
    assert world.names() == ["site"]
    assert world.store.read == ["4", "3", "2"]
    assert refusals(caplog) == [
        ("4", "providers[1].name: site is listed twice"),
        ("3", "providers: must list at least one"),
    ]
    assert counted("ProviderSettingsRefused") == 1
    world.now += REFRESH_SECONDS
    assert world.names() == ["site"]
    assert world.store.read == ["4", "3", "2", "4"], "what was refused is not looked at again"


def test_a_version_that_can_not_be_read_is_refused_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    world = World(listed("site"), "")
    world.store.unreadable = "S3 answered NoSuchKey"
    assert world.names() == ["site"]
    assert refusals(caplog) == [("2", "S3 answered NoSuchKey")]


def test_who_has_an_older_version_takes_the_newest_one_that_is_right_too() -> None:
    """As others do, who may have made jobs by it."""
    world = World(listed("site"))
    assert world.names() == ["site"]
    world.store.texts += [listed("site", "db"), "{}"]
    assert "db" in world.settings
    world.store.texts += ["{}"] * MAX_VERSIONS
    world.now += REFRESH_SECONDS
    assert world.names() == ["site", "db"], "among five that are wrong none is better"


def test_no_more_than_five_versions_are_looked_at() -> None:
    world = World(listed("site"), *["{}"] * MAX_VERSIONS)
    for _ in range(2):
        with pytest.raises(SettingsUnavailable):
            world.settings.get("site")
    assert world.store.read == ["6", "5", "4", "3", "2"]
    world.now += RETRY_SECONDS
    with pytest.raises(SettingsUnavailable):
        len(world.settings)
    assert world.store.read == ["6", "5", "4", "3", "2", "6"], "those were looked at"
    world.store.texts.append(listed("db"))
    world.now += RETRY_SECONDS
    assert world.names() == ["db"]


def test_while_there_are_none_a_store_that_is_down_is_asked_again_after_some_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(listed("site"))
    world.store.down = True
    for _ in range(3):
        with pytest.raises(SettingsUnavailable):
            world.names()
    assert (len(world.store.read), counted("ProviderSettingsUnread")) == (1, 1)
    (record,) = caplog.records
    assert (record.levelno, record.message) == (logging.ERROR, "provider settings not read")
    assert (record.__dict__["source"], record.__dict__["error"]) == ("ssm:/providers", "The store is down.")
    world.store.down = False
    world.now += RETRY_SECONDS
    assert world.names() == ["site"]


def test_a_store_that_is_down_later_leaves_what_is_in_use_and_is_asked_again_after_a_minute() -> None:
    """Whether a name that is unknown has come meanwhile can't be said: that is no reason to fail its job."""
    world = World(listed("site"))
    assert world.names() == ["site"]
    world.store.texts.append(listed("site", "db"))
    world.store.down = True
    world.now += REFRESH_SECONDS
    for _ in range(3):
        assert world.names() == ["site"]
        with pytest.raises(SettingsUnavailable, match="those in use lack db"):
            world.settings.get("db")
    assert (len(world.store.read), counted("ProviderSettingsUnread")) == (2, 1)
    world.store.down = False
    world.now += REFRESH_SECONDS
    assert world.names() == ["site", "db"]
    assert "shop" not in world.settings


def test_a_look_back_that_breaks_off_is_begun_anew() -> None:
    world = World(listed("site"), "{}")
    world.store.history_down = True
    with pytest.raises(SettingsUnavailable):
        world.names()
    world.store.history_down = False
    world.now += RETRY_SECONDS
    assert world.names() == ["site"]
    assert world.store.read == ["2", "2", "1"]


class Slow(Store):
    """Answers when the test lets it."""

    def __init__(self, *texts: str) -> None:
        super().__init__(*texts)
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def newest(self) -> Version:
        self.asked.set()
        assert self.may_answer.wait(LIMIT_SECONDS)
        return super().newest()


def test_threads_that_find_none_wait_for_the_one_that_reads() -> None:
    store = Slow(listed("site"))
    settings = ProviderSettings(store, lambda: 0.0)
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(list, settings) for _ in range(4)]
        assert store.asked.wait(LIMIT_SECONDS)
        store.may_answer.set()
        assert [each.result(LIMIT_SECONDS) for each in found] == [["site"]] * 4
    assert store.read == ["1"]


def test_threads_go_on_with_the_version_in_use_while_one_reads_the_next() -> None:
    store = Slow(listed("site"))
    store.may_answer.set()
    now = 0.0
    settings = ProviderSettings(store, lambda: now)
    assert list(settings) == ["site"]
    store.texts.append(listed("site", "db"))
    store.asked.clear()
    store.may_answer.clear()
    now = REFRESH_SECONDS
    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(list, settings)
        assert store.asked.wait(LIMIT_SECONDS)
        assert list(settings) == ["site"]
        store.may_answer.set()
        assert reader.result(LIMIT_SECONDS) == ["site", "db"]
    assert store.read == ["1", "2"]


def test_threads_that_look_for_a_name_of_a_newer_version_all_find_it() -> None:
    store = Slow(listed("site"))
    store.may_answer.set()
    settings = ProviderSettings(store, lambda: 0.0)
    assert list(settings) == ["site"]
    store.texts.append(listed("site", "db"))
    store.asked.clear()
    store.may_answer.clear()
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(settings.get, "db") for _ in range(4)]
        assert store.asked.wait(LIMIT_SECONDS)
        store.may_answer.set()
        assert None not in [each.result(LIMIT_SECONDS) for each in found]
    assert store.read == ["1", "2"]
