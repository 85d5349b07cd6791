"""Providers that are listed in an object: what is put there is used within seconds, and what is wrong never is."""

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from local.services.s3 import BUCKET, s3_client
from mock_providers.client import MockSite
from tests.builders import LOOPBACK
from tests.e2e.client import Json, wait_until
from tests.e2e.stack import Stack

KEY = "settings/providers.json"
FUNCTIONS = ("create_job", "process_provider", "finish_task", "upload_part")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(tmp_path_factory.mktemp("stack"), ProvidersSource=f"s3://{BUCKET}/{KEY}") as system:
        yield system


def put(stack: Stack, body: str) -> str:
    """The id of the new version."""
    answer: Any = s3_client(stack.s3.address).put_object(Bucket=BUCKET, Key=KEY, Body=body.encode())
    return str(answer["VersionId"])


def listed(stack: Stack, *names: str) -> str:
    export = "/{name}/export?userId={userId}&siteId={siteId}&chunkSize={chunkSize}"
    url = stack.run.url("PROVIDERS") + export
    return json.dumps(
        [
            {"name": name, "exportUrl": url.replace("{name}", name), "allowNetworks": LOOPBACK}
            for name in names
        ]
    )


def ask(stack: Stack, site: MockSite, *names: str) -> requests.Response:
    body: Json = {"userId": site.user_id, "siteId": site.site_id}
    return stack.api.post("/backup", {**body, **({"providers": names} if names else {})})


def test_what_is_put_into_the_object_is_used_and_what_is_wrong_is_refused_while_the_last_good_one_stays(
    stack: Stack,
) -> None:
    before = ask(stack, stack.site())
    assert (before.status_code, before.headers["Retry-After"]) == (503, "5")
    assert before.json()["type"] == "unavailable"

    put(stack, listed(stack, "site"))
    site = stack.site()
    wait_until("the providers are found", lambda: ask(stack, site).status_code == 202, every=1)
    (job,) = stack.api.get("/backup", siteId=site.site_id).json()["jobs"]
    stack.bucket.assert_holds(stack.api.done(job), site)

    put(stack, listed(stack, "site", "db"))
    site = stack.site()
    sites = (site, stack.site("db", of=site))
    stack.bucket.assert_holds(stack.api.done(stack.api.create(*sites)), *sites)

    since = stack.run.log_size()
    wrong = put(stack, listed(stack, "site", "media").replace("exportUrl", "exportURL"))
    refused = ask(stack, stack.site(), "media")
    assert refused.status_code == 400
    assert refused.json()["detail"] == "providers[0]: no provider 'media'; there are: site, db"
    (line,) = [
        line for line in stack.run.written(since) if line.get("message") == "provider settings refused"
    ]
    assert (line["level"], line["source"], line["version"]) == ("ERROR", f"s3://{BUCKET}/{KEY}", wrong)
    assert line["error"] == "providers[0].exportURL: unknown field"
    assert any("ProviderSettingsRefused" in line for line in stack.run.written(since) if "_aws" in line)
    stack.bucket.assert_holds(stack.api.done(stack.api.create(*sites)), *sites)

    for folder in FUNCTIONS:
        for pid in stack.run.environments(folder):
            os.kill(pid, signal.SIGKILL)
    # A call that comes before its end is noticed may still reach one of them, and is a 500 then, as at Lambda.
    wait_until("new environments answer", lambda: ask(stack, stack.site()).status_code == 202, every=1)
    stack.bucket.assert_holds(stack.api.done(stack.api.create(*sites)), *sites)

    put(stack, listed(stack, "site", "db", "media"))
    site = stack.site("media")
    stack.bucket.assert_holds(stack.api.done(stack.api.create(site)), site)
