"""The local run as its user sees it: `python -m local`, in processes of its own on free ports."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from rich.console import Console

from local import background, demo
from local.follow import call, check_done, follow
from local.paths import ROOT
from local.services.mock_providers import MockProviders
from local.services.s3 import BUCKET, s3_client
from local.services.service import Service, ServiceError
from local.settings import Settings, SettingsError, free_ports
from local.state import find_run
from mock_providers.archive import Archive
from mock_providers.client import MockSite

MIB = 1024 * 1024
USER, SITE = "5f0000000000000000000001", "6a0000000000000000000001"


def _env(folder: Path, **changes: str) -> dict[str, str]:
    return background.environment(**free_ports(), LOCAL_DIR=str(folder), **changes)


def _local(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL
    )


def _tree(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _all_gone(processes: list[psutil.Process], limit: float = 20.0) -> bool:
    """Whether all end: those whose parent died are reaped by another process."""
    deadline = time.monotonic() + limit
    while alive := [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]:
        if time.monotonic() > deadline:
            print("still there:", alive)
            return False
        time.sleep(0.05)
    return True


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], Settings]]:
    """A run in the background, with an issuer, parts of 5 MiB and four environments a function."""
    env = _env(tmp_path_factory.mktemp("local"), PARAM_PartSizeMib="5", CONCURRENCY="4", AUTH="jwt")
    result = _local(env, "up")
    assert result.returncode == 0, result.stdout + result.stderr
    settings = Settings.from_env(env)
    try:
        yield env, settings
    finally:
        processes = _tree(find_run(settings).pid)  # type: ignore[union-attr]
        assert len(processes) >= 5
        down = _local(env, "down")
        if down.returncode != 0:
            processes[0].kill()
        assert down.returncode == 0, down.stderr
        assert _all_gone(processes)
        assert not settings.state_file.exists()


def test_up_says_where_everything_is(up: tuple[dict[str, str], Settings]) -> None:
    env, settings = up
    result = _local(env, "status")
    assert result.returncode == 0
    for port in settings.ports.values():
        assert f"127.0.0.1:{port}" in result.stdout
    assert "upload-part-created" in result.stdout
    assert result.stdout.startswith("Up with LAMBDA=local SERVICES=embedded AUTH=jwt CONCURRENCY=4\n")
    again = _local(env, "up")
    assert again.returncode == 0
    assert "Already up" in again.stdout
    assert "LAMBDA=local SERVICES=embedded AUTH=jwt CONCURRENCY=4" in again.stdout
    other = _local({**env, "CONCURRENCY": "5"}, "up")
    assert other.returncode == 1
    assert "CONCURRENCY=5 was asked for: `make down` first" in other.stderr
    wipe = _local(env, "wipe")
    assert wipe.returncode == 1
    assert "It is up: `make down` first." in wipe.stderr


def test_a_token_that_is_printed_opens_the_api_of_users(up: tuple[dict[str, str], Settings]) -> None:
    env, settings = up
    url = f"http://127.0.0.1:{settings.ports['USER_API']}/backup"
    assert requests.get(url, timeout=30).status_code == 401
    printed = _local(env, "token", USER, f"{SITE},{'6' * 24}", "backup:read")
    assert printed.returncode == 0, printed.stderr
    authorization = {"authorization": f"Bearer {printed.stdout.strip()}"}
    assert requests.get(url, headers=authorization, timeout=30).status_code == 200
    refused = requests.post(
        url, headers=authorization, json={"userId": USER, "siteId": SITE, "providers": ["site"]}, timeout=30
    )
    assert (refused.status_code, refused.json()["scope"]) == (403, "backup:write")
    for user, sites, named in (("root", SITE, "USER: 'root'"), (USER, "", "SITES: ''")):
        wrong = _local(env, "token", user, sites, "backup:read")
        assert wrong.returncode == 1
        assert f"{named} must be 24 hex digits" in wrong.stderr


def test_a_backup_over_http_is_done_and_lag_returns_to_zero(up: tuple[dict[str, str], Settings]) -> None:
    _, settings = up
    size = 12 * 1024 * 1024
    control = f"{settings.providers_address}/control/site/{SITE}"
    requests.put(control, json={"size": size}, timeout=10).raise_for_status()
    body = {"userId": USER, "siteId": SITE, "providers": ["site"]}
    answer = requests.post(f"{settings.api_address}/backup", json=body, timeout=30)
    assert answer.status_code == 202, answer.text
    job = answer.json()
    deadline = time.monotonic() + 120
    while job["status"] in ("pending", "running"):
        assert time.monotonic() < deadline, job
        query = {"wait": "5", "since": job["version"]}
        job = requests.get(f"{settings.api_address}/backup/{job['jobId']}", params=query, timeout=40).json()
    assert job["status"] == "done", job
    assert job["tasks"]["site"]["progress"]["partsTotal"] == 3  # PARAM_PartSizeMib was used
    key = job["tasks"]["site"]["object"]["key"]
    s3 = s3_client(f"http://127.0.0.1:{settings.ports['S3']}")
    stored = demo._digest(s3.get_object(Bucket=BUCKET, Key=key)["Body"].iter_chunks())
    assert stored.sha256 == Archive("site", USER, SITE, size, 1).sha256()
    while True:
        mappings = requests.get(f"{settings.lambda_address}/mappings", timeout=10).json()
        if all(lag == 0 for one in mappings for lag in one["lag"].values()):
            break
        assert time.monotonic() < deadline, mappings
        time.sleep(0.05)
    assert sum(one["invocations"] for one in mappings) >= 4
    assert [one["last_error"] for one in mappings if one["last_error"]] == []


def test_a_burst_of_fifty_backups_is_accepted_each_once(up: tuple[dict[str, str], Settings]) -> None:
    """Far more than there are execution environments, so API Gateway may answer 503: the client asks again."""
    _, settings = up
    deadline = time.monotonic() + 240

    def post(number: int) -> requests.Response:
        body = {"userId": USER, "siteId": f"{number:024x}", "providers": ["db"]}
        headers = {"Idempotency-Key": f"burst-{number}"}
        while True:
            answer = requests.post(f"{settings.api_address}/backup", json=body, headers=headers, timeout=40)
            if answer.status_code != 503 or time.monotonic() > deadline:
                return answer

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(post, range(50)))
    assert [answer.status_code for answer in answers if answer.status_code not in (200, 202)] == []
    for number, answer in enumerate(answers):
        query = {"userId": USER, "siteId": f"{number:024x}"}
        page = requests.get(f"{settings.api_address}/backup", params=query, timeout=40)
        assert page.status_code == 200, page.text
        assert [job["jobId"] for job in page.json()["jobs"]] == [answer.json()["jobId"]]
    environments = requests.get(f"{settings.lambda_address}/environments", timeout=10).json()
    assert sum(one["folder"] == "create_job" for one in environments) <= 4


def test_invoke_prints_the_answer(up: tuple[dict[str, str], Settings], tmp_path: Path) -> None:
    env, _ = up
    result = _local(env, "invoke", "get_job", "events/get_job.json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["statusCode"] in (200, 404)
    assert "no_such" in _local(env, "invoke", "no_such", "events/get_job.json").stderr
    broken = tmp_path / "event.json"
    broken.write_text("{")
    result = _local(env, "invoke", "get_job", str(broken))
    assert result.returncode == 1
    assert result.stderr.startswith("EVENT: ")


def _backed_up(settings: Settings) -> tuple[dict[str, Any], MockSite]:
    """A done backup of one provider, whose site has changed since."""
    site = MockSite(settings.providers_address).set(size=MIB)
    body = {"userId": site.user_id, "siteId": site.site_id, "providers": ["site"]}
    job = call("POST", f"{settings.api_address}/backup", 202, body)
    job = follow(f"{settings.api_address}/backup/{job['jobId']}", job, 120, Console(quiet=True))
    check_done(job)
    site.set(size=MIB, revision=2)
    return job, site


def test_a_backup_is_given_back_by_its_id(up: tuple[dict[str, str], Settings]) -> None:
    env, settings = up
    job, site = _backed_up(settings)
    changed = site.sha256()
    result = _local(env, "restore", job["jobId"], "site", "true")
    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"site +done +1 +1", result.stdout)
    assert site.sha256() == Archive("site", site.user_id, site.site_id, MIB, 1).sha256()
    safety = re.search(r"The safety backup, .*, is ([0-9a-f]{24})\.", result.stdout)
    assert safety is not None
    assert _local(env, "restore", safety[1], "all", "false").returncode == 0
    assert site.sha256() == changed


def test_a_restore_that_fails_says_why_and_has_another_exit_code(up: tuple[dict[str, str], Settings]) -> None:
    env, settings = up
    job, site = _backed_up(settings)
    site.set(imports={"importFails": {"message": "no room [left]"}})
    result = _local(env, "restore", job["jobId"], "all", "false")
    assert result.returncode == 1
    assert "It ended as failed: import_failed: " in result.stderr
    assert "no room [left]" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("xyz", "all", "true"), "answered 400: jobId"),
        (("0" * 24, "all", "true"), "answered 404: There is no"),
        ((None, "mail", "true"), "answered 400: providers"),
        ((None, "all", "yes"), "SAFETY is 'yes'; it must be true or false."),
    ],
)
def test_a_restore_that_can_not_begin_says_why(
    up: tuple[dict[str, str], Settings], arguments: tuple[str | None, str, str], sentence: str
) -> None:
    env, settings = up
    job_id, providers, safety = arguments
    result = _local(env, "restore", job_id or _backed_up(settings)[0]["jobId"], providers, safety)
    assert result.returncode == 1
    assert sentence in result.stderr


def test_a_restore_without_a_run_says_how_to_start_one(tmp_path: Path) -> None:
    result = _local(_env(tmp_path), "restore", "0" * 24, "all", "true")
    assert result.returncode == 1
    assert "does not answer" in result.stderr
    assert "`make up` starts it" in result.stderr


def test_make_restore_asks_for_the_backup() -> None:
    result = subprocess.run(
        ["make", "--old-file", ".venv/.local", "restore"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.returncode == 2
    assert "make restore JOB=" in result.stderr


def test_the_log_names_the_source_of_each_line(up: tuple[dict[str, str], Settings]) -> None:
    _, settings = up
    log = (settings.folder / "log").read_text()
    assert " local " in log
    assert "kafka is ready at" in log


def test_a_service_that_dies_is_started_again(up: tuple[dict[str, str], Settings]) -> None:
    env, settings = up
    state = find_run(settings)
    assert state is not None
    old = state.services["mongo"]
    assert old is not None
    os.kill(old, signal.SIGKILL)
    deadline = time.monotonic() + 60
    status = 0
    while status != 200:
        assert time.monotonic() < deadline, (settings.folder / "log").read_text()[-2000:]
        status = requests.get(f"{settings.api_address}/backup", timeout=40).status_code
        now = find_run(settings)
        if now is None or now.services["mongo"] == old:
            status = 0
        time.sleep(0.1)
    assert "mongo ended with code -9" in (settings.folder / "log").read_text()
    assert "down, see the log" not in _local(env, "status").stdout


def test_a_service_that_does_not_start_shows_nothing_of_the_run_before(tmp_path: Path) -> None:
    (tmp_path / "providers.log").write_text("a line of the run before\n")
    providers = MockProviders(tmp_path, int(free_ports()["PROVIDERS_PORT"]), "site=huge")
    providers.start()
    with pytest.raises(ServiceError, match="'site=huge' is not provider=bytes") as error:
        providers.wait_ready()
    assert "run before" not in str(error.value)


def test_nothing_is_left_when_the_run_is_killed(
    tmp_path: Path, mongo: Service, kafka: Service, s3: Service
) -> None:
    """And a run on external services starts no service of its own."""
    env = _env(tmp_path, SERVICES="external", KAFKA_BOOTSTRAP_SERVERS=kafka.address, MONGO_URI=mongo.address,
               S3_ENDPOINT_URL=s3.address)  # fmt: skip
    settings = Settings.from_env(env)
    run = background.start(settings, env)
    try:
        state = find_run(settings)
        assert state is not None
        assert list(state.services) == ["providers"]
        assert requests.get(f"{settings.api_address}/backup", timeout=40).status_code == 200
        processes = _tree(run.pid)
        assert len(processes) >= 3  # the run, the mock providers, an execution environment
    finally:
        run.kill()
        run.wait(10)
    assert _all_gone(processes)
    assert find_run(settings) is None
    result = _local(env, "status")
    assert result.returncode == 3
    assert "Nothing is up" in result.stdout
    assert "Nothing is up" in _local(env, "down").stdout


def test_wipe_removes_all_that_a_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    env = _env(tmp_path)
    result = _local(env, "up")
    assert result.returncode == 0, result.stdout + result.stderr
    assert _local(env, "down").returncode == 0
    assert (tmp_path / "s3").is_dir()
    (tmp_path / "notes.txt").write_text("mine")
    assert _local(env, "wipe").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_port_in_use_says_what_to_do_and_nothing_of_the_run_before(tmp_path: Path) -> None:
    env = _env(tmp_path)
    (tmp_path / "log").write_text("16:00:00.000 local      a line of the run before\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(env["API_PORT"])))
        taken.listen()
        result = _local(env, "up")
    assert result.returncode == 1
    assert f"Port {env['API_PORT']} is in use" in result.stderr
    assert "set API_PORT to another port" in result.stderr
    assert "run before" not in result.stderr


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"PARAM_PartSizeMib": "1"}, "PartSizeMib"),
        ({"PROVIDERS": '[{"name": "site"}]'}, "PROVIDERS: providers[0].exportUrl: required"),
        ({"PROVIDERS": "site,db"}, "PROVIDERS: providers: not valid JSON"),
        (
            {"PROVIDERS": '[{"name": "site", "exportUrl": "ftp://x"}]'},
            "providers[0].exportUrl: must be a URL",
        ),
        ({"PARAM_Providers": "[]"}, "PROVIDERS: providers: must list at least one"),
        ({"PARAM_ProvidersSource": "s3://backups"}, "PROVIDERS_SOURCE must be ssm:/name or s3://bucket/key"),
        (
            {"PARAM_ProvidersSource": "s3://backups/p", "PROVIDERS": "[]"},
            "PROVIDERS and PROVIDERS_SOURCE are both set",
        ),
    ],
)
def test_a_wrong_parameter_is_refused_by_its_name_before_anything_starts(
    tmp_path: Path, changes: dict[str, str], sentence: str
) -> None:
    env = _env(tmp_path, **changes)
    result = _local(env, "up")
    if result.returncode == 0:
        _local(env, "down")
    assert result.returncode == 1
    assert sentence in result.stderr
    assert not (tmp_path / "kafka").exists()


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"API_PORT": "http"}, "API_PORT is 'http'"),
        ({"KAFKA_PORT": "70000"}, "KAFKA_PORT is '70000'"),
        ({"CONCURRENCY": "0"}, "CONCURRENCY is '0'; it must be a number from 1 to 1000"),
        ({"CONCURRENCY": "٣"}, "CONCURRENCY is"),
        ({"CONCURRENCY": "5", "LAMBDA": "sam"}, "CONCURRENCY can't be set with LAMBDA=sam"),
        ({"SERVICES": "docker"}, "SERVICES is 'docker'"),
        ({"AUTH": "none"}, "AUTH is 'none'; it must be iam or jwt"),
        ({"SERVICES": "external", "MONGO_URI": "mongodb://m"}, "KAFKA_BOOTSTRAP_SERVERS and S3_ENDPOINT_URL"),
    ],
)
def test_wrong_settings_are_named(env: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.from_env(env)


def test_the_demo_sees_a_difference(s3: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "SIZES", {"site": 1})
    providers = MockProviders(tmp_path, int(free_ports()["PROVIDERS_PORT"]), "site=1MiB")
    providers.start()
    try:
        providers.wait_ready()
        env = {"PROVIDERS_PORT": str(providers.port), "S3_PORT": str(s3.port)}
        settings = Settings.from_env(env)
        client = s3_client(s3.address)
        content = bytearray(Archive("site", USER, SITE, 1024 * 1024, 1).read(0, 1024 * 1024))
        place = {"bucket": BUCKET, "key": "demo/site.zip"}
        task = {"object": place, "progress": {"partsTotal": 1}}
        job: dict[str, Any] = {"userId": USER, "siteId": SITE, "tasks": {"site": task}}

        def equal() -> bool:
            client.put_object(
                Bucket=place["bucket"], Key=place["key"], Body=bytes(content), ChecksumAlgorithm="CRC64NVME"
            )
            exports = {"site": demo._export(settings, "site", job)}
            return demo._compare(settings, job, exports, Console(quiet=True))

        assert equal()
        content[-1] ^= 1
        assert not equal()
    finally:
        providers.stop()
