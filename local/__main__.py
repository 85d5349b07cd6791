"""`python -m local`: starts everything on this machine, shows it, uses it and stops it."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import requests
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console
from rich.table import Table

from . import background, catalog
from .lambda_runtime.client import lambda_client
from .paths import ROOT
from .restore import main as give_back
from .services.service import HOST
from .settings import SITES_CLAIM, Settings, SettingsError
from .state import find_run

sys.path.append(str(ROOT / "layers/common"))  # as the layer is on the path of a function
_NOT_UP = 3
_ID = re.compile("[0-9a-f]{24}")
_SERVICES = ("kafka", "mongo", "s3", "providers")
_LOGS = (*(f"{name}.log" for name in (*_SERVICES, "compose", "api", "lambda")), "log", "log.1", "errors")
_WRITTEN = (*_SERVICES, *_LOGS, "s3.json", "sam")
_MAX_FUNCTION_SECONDS = 900.0


def main() -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start everything in the background, and return once it is up")
    up.add_argument("--foreground", action="store_true", help="stay, and print the log, until Ctrl-C")
    up.add_argument("--throw-away", action="store_true", help="with --foreground: at the end, kill what runs")
    commands.add_parser("down", help="stop what `up` started")
    commands.add_parser("wipe", help="remove data and logs, once it is down")
    commands.add_parser("status", help="what runs where, and the lag of each Kafka mapping")
    commands.add_parser("logs", help="follow the log")
    invoke = commands.add_parser("invoke", help="invoke one function")
    invoke.add_argument("function", help="its folder or its name in template.yaml")
    invoke.add_argument("event", type=Path, help="a file with the event")
    restore = commands.add_parser("restore", help="give a backup back to its providers")
    restore.add_argument("job", help="the id of the backup")
    restore.add_argument("providers", help="all, or names with commas between them")
    restore.add_argument("safety", help="true: back the site up first; false: don't")
    for name, what in (("rebuild", "make the records that the bucket knows of"), ("check", "compare both")):
        one = commands.add_parser(f"catalog-{name}", help=what)
        one.add_argument("--stack", default="", help="a stack on AWS, instead of the local run")
        one.add_argument("--marker", default="", help="to go on where another run broke off")
        one.add_argument("--prefix", default="", help="of user ids, to go through these alone")
        if name == "rebuild":
            one.add_argument("before", help="the time when the database was lost")
    token = commands.add_parser("token", help="print a token of the issuer that AUTH=jwt starts")
    token.add_argument("user", help="the id of the user")
    token.add_argument("sites", help="ids of sites with commas between them")
    token.add_argument("scope", help="scopes with spaces between them")
    commands.add_parser(
        "demo", help="back up two exports, change the sites, restore them, compare every byte"
    )
    arguments = parser.parse_args()
    try:
        settings = Settings.from_env(os.environ)
        match arguments.command:
            case "up" if arguments.foreground:
                from .foreground import main as run  # the servers are not loaded for the other commands

                return run(settings, throw_away=arguments.throw_away)
            case "up":
                return _up(settings)
            case "down":
                return _down(settings)
            case "wipe":
                return _wipe(settings)
            case "status":
                return _status(settings)
            case "logs":
                return _logs(settings)
            case "invoke":
                return _invoke(settings, arguments.function, arguments.event)
            case "restore":
                return _restore(settings, arguments.job, arguments.providers, arguments.safety)
            case "catalog-rebuild":
                function = _catalog_function(settings, arguments.stack, "RebuildCatalogFunction")
                return catalog.run(
                    lambda: catalog.rebuild(function(), arguments.before, arguments.marker, arguments.prefix)
                )
            case "catalog-check":
                function = _catalog_function(settings, arguments.stack, "CheckCatalogFunction")
                return catalog.run(lambda: catalog.check(function(), arguments.marker, arguments.prefix))
            case "token":
                return _token(settings, arguments.user, arguments.sites, arguments.scope)
            case _:
                from .demo import main as demo

                return demo()
    except SettingsError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return 130


def _up(settings: Settings) -> int:
    if state := find_run(settings):
        print(f"Already up (process {state.pid}) with {_text(state.choices)}, the API at "
              f"http://{HOST}:{state.ports['API']}.")  # fmt: skip
        if state.choices != settings.choices:
            return _fail(f"{_text(settings.choices)} was asked for: `make down` first, then `make up` again.")
        return 0
    print("Starting Kafka, MongoDB's protocol, S3, the mock providers and the functions ...", flush=True)
    try:
        background.start(settings, os.environ)
    except background.NotStarted as error:
        return _fail(f"Not started. {error}")
    return _status(settings)


def _down(settings: Settings) -> int:
    state = find_run(settings)
    if state is None:
        print("Nothing is up.")
        return 0
    if background.end(state.pid):
        print(f"Stopped. Data and logs are kept in {settings.folder}.")
    else:
        print("It did not stop in time and was killed; its services died with it.")
    settings.state_file.unlink(missing_ok=True)
    return 0


def _wipe(settings: Settings) -> int:
    if find_run(settings):
        return _fail("It is up: `make down` first.")
    for name in _WRITTEN:  # nothing else: LOCAL_DIR may be a folder with other things in it
        path = settings.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    print(f"Data and logs are removed from {settings.folder}.")
    return 0


def _status(settings: Settings) -> int:
    state = find_run(settings)
    if state is None:
        print("Nothing is up: `make up` starts it.")
        return _NOT_UP
    print(f"Up with {_text(state.choices)}")
    console = Console(soft_wrap=True)
    names = {"API": "HTTP API", "LAMBDA": "Lambda Invoke API", "PROVIDERS": "mock providers"}
    names |= {"KAFKA": "Kafka", "MONGO": "MongoDB's protocol", "ISSUER": "issuer of tokens"}
    names |= {"USER_API": "HTTP API for users"}
    here = {"api", "lambda"} | ({"user_api", "issuer"} if state.choices.get("AUTH") == "jwt" else set())
    table = Table("what", "address", "process", box=None)
    for name, port in state.ports.items():
        service = name.lower()
        ours = service in here
        if not ours and service != "providers" and not {service, "compose"} & state.services.keys():
            continue  # external
        pid = state.services.get(service, state.pid if ours else state.services.get("compose"))
        address = f"{HOST if ours else state.host}:{port}"
        table.add_row(names.get(name, name), address, str(pid) if pid else "down, see the log")
    console.print(table)
    if "lambda" in state.services:
        print("Functions run under sam local: it does not show the Kafka mappings.")
        return 0
    try:
        answer = requests.get(f"http://{HOST}:{state.ports['LAMBDA']}/mappings", timeout=10)
        answer.raise_for_status()
        mappings = answer.json()
    except requests.RequestException as error:
        return _fail(f"The Kafka mappings can't be shown: {error}")
    table = Table("Kafka mapping to", "topic", "lag", "in flight", "calls", "errors", box=None)
    for one in mappings:
        lags = one["lag"].values()
        lag = str(sum(lags)) if lags and None not in lags else "?"
        counts = (str(one[name]) for name in ("in_flight", "invocations", "errors"))
        table.add_row(one["function"], one["topic"], lag, *counts)
    console.print(table)
    for one in mappings:
        if one["last_error"]:
            console.print(f" {one['function']}, last error: {one['last_error']}", markup=False)
    return 0


def _logs(settings: Settings) -> int:
    path = settings.folder / "log"
    if not path.exists():
        return _fail("There is no log yet: `make up` begins one.")
    return subprocess.run(["tail", "-n", "100", "-F", str(path)], check=False).returncode


def _invoke(settings: Settings, function: str, event: Path) -> int:
    try:
        payload = event.read_bytes()
        json.loads(payload)
    except (OSError, ValueError) as error:
        return _fail(f"EVENT: {event} can't be used: {error}")
    state = find_run(settings)
    address = f"http://{HOST}:{state.ports['LAMBDA']}" if state else settings.lambda_address
    client = lambda_client(address, read_timeout=_MAX_FUNCTION_SECONDS)
    try:
        answer = client.invoke(FunctionName=function, Payload=payload, LogType="Tail")
    except ClientError as error:
        return _fail(f"FUNCTION: {error}")
    except BotoCoreError as error:
        return _fail(f"{error}. Is it up? `make up` starts it.")
    result = answer["Payload"].read().decode(errors="replace")
    try:
        print(json.dumps(json.loads(result), indent=2))
    except ValueError:
        print(result)
    return 1 if "FunctionError" in answer else 0


def _restore(settings: Settings, job_id: str, providers: str, safety: str) -> int:
    state = find_run(settings)
    address = f"http://{HOST}:{state.ports['API']}" if state else settings.api_address
    return give_back(address, job_id, providers, safety)


def _catalog_function(settings: Settings, stack: str, name: str) -> Callable[[], catalog.Invoke]:
    if stack:
        return lambda: catalog.deployed_function(stack, name)
    state = find_run(settings)
    address = f"http://{HOST}:{state.ports['LAMBDA']}" if state else settings.lambda_address
    return lambda: catalog.local_function(address, name)


def _token(settings: Settings, user: str, sites: str, scope: str) -> int:
    """What a page of this user would send in `Authorization: Bearer`."""
    state = find_run(settings)
    if state is None or state.choices.get("AUTH") != "jwt":
        return _fail("There is no issuer: `make up AUTH=jwt` starts one.")
    listed = sites.split(",")
    for name, value in (("USER", user), *(("SITES", each) for each in listed)):
        if not _ID.fullmatch(value):
            return _fail(f"{name}: {value!r} must be 24 hex digits in lower case.")
    claims = {"sub": user, SITES_CLAIM: listed, "scope": scope}
    try:
        answer = requests.post(f"http://{HOST}:{state.ports['ISSUER']}/token", json=claims, timeout=10)
        answer.raise_for_status()
    except requests.RequestException as error:
        return _fail(f"The issuer gives no token: {error}")
    print(answer.json()["access_token"])
    return 0


def _text(choices: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in choices.items())


def _fail(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
