"""Runs everything on this machine in one process tree: services, mock providers, and the template's functions.

Everything reaches functions through the Lambda Invoke API at one address, so that another Lambda service can
stand there.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import logging.handlers
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import FrameType

import psutil
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from sitebackup.settings import Settings as ServiceSettings
from sitebackup.settings import SettingsError as ServiceSettingsError

from .asgi import serve
from .aws_account import ACCESS_KEY, SECRET_KEY
from .event_sources.kafka_mapping import EventSourceMapping
from .event_sources.schedules import Schedules
from .http_api.authorizers import Authorizer, by_iam
from .http_api.gateway import INTEGRATION_SECONDS, HttpApi
from .http_api.jwt_authorizer import JwtAuthorizer
from .issuer import Issuer
from .lambda_runtime.invoke_api import invoke_app
from .lambda_runtime.sam import Sam, SamServer, build, require_image
from .lambda_runtime.service import LambdaService
from .paths import TEMPLATE
from .services.compose import Compose
from .services.kafka import Kafka, create_topics
from .services.mock_providers import MockProviders
from .services.mongo import Mongo
from .services.processes import port_is_free
from .services.s3 import S3, create_bucket
from .services.service import HOST, NOT_READY, Service, ServiceError
from .settings import AUDIENCE, Settings, SettingsError
from .state import RunState, write_state
from .template.intrinsics import TemplateError
from .template.model import KafkaMapping, Template
from .template.reader import load

log = logging.getLogger("local")

_LOG_BYTES = 32 * 1024 * 1024
_CHECK_SECONDS = 1.0
_KILL_SECONDS = 10.0
_SAM_SECONDS = 180.0  # sam makes a container at the first request
_RESTART_SECONDS = 30.0  # a service that dies again sooner is left alone for as long
_CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}


def main(settings: Settings, *, throw_away: bool = False) -> int:
    """Run until SIGINT or SIGTERM; the exit code. Call it in the main thread: the services die with it.

    With `throw_away` nobody keeps the data: the end is kill -9 for all that runs.
    """
    settings.folder.mkdir(parents=True, exist_ok=True)
    _log_to(settings.folder / "log")
    signal.signal(signal.SIGTERM, _interrupt)
    running: list[Service] = []
    try:
        _check_ports(settings)
        wanted, addresses = _services(settings)
        parameters = settings.template_parameters(*addresses)
        template = load(TEMPLATE, parameters)
        check_environment(template)
        if settings.by_sam:
            require_image(settings.image)
        _start_services(wanted, running)
        if settings.external is not None:
            _prepare_external(*addresses)
        if settings.by_sam:
            _start_sam(settings, parameters, running)
        asyncio.run(_serve(settings, template, addresses[0], running, throw_away))
    except (ServiceError, SettingsError, TemplateError) as error:
        log.error("%s", error)
        return 1
    except KeyboardInterrupt:
        log.info("stopped before everything was up")
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        settings.state_file.unlink(missing_ok=True)
        if throw_away:
            _kill_children()
        for service in running:
            service.terminate()
        for service in reversed(running):
            service.stop()
        log.info("stopped")
    return 0


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _kill_children() -> None:
    children = psutil.Process().children(recursive=True)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(children, timeout=_KILL_SECONDS)


def _end_at_once(running: Sequence[Service]) -> None:
    """Without a wait for what is under way: requests, invocations, consumers."""
    _kill_children()
    for service in running:
        service.stop()  # what it leaves behind
    os._exit(0)


def _log_to(path: Path) -> None:
    """One log for all, a line naming its source, on standard output and in a file of bounded size."""
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.handlers.clear()
    for name in ("kafka", "botocore", "urllib3"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # The mapping says itself when the broker is lost, and when a consumer is replaced.
    for name in ("kafka.coordinator", "kafka.cluster", "kafka.net", "kafka.consumer"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    form = logging.Formatter("%(asctime)s.%(msecs)03d %(name)-24s %(message)s", "%H:%M:%S")
    file = logging.handlers.RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=1)
    for handler in (logging.StreamHandler(sys.stdout), file):
        handler.setFormatter(form)
        root.addHandler(handler)


def _check_ports(settings: Settings) -> None:
    ours = {"API": HOST, "LAMBDA": HOST, "PROVIDERS": settings.host}
    if settings.by_jwt:
        ours |= {"USER_API": HOST, "ISSUER": HOST}
    if settings.external is None:
        ours |= dict.fromkeys(("S3", "KAFKA", "MONGO"), settings.host)
    for name, host in ours.items():
        port = settings.ports[name]
        if not port_is_free(port, host):
            raise ServiceError(
                f"Port {port} is in use. Is everything up already (`make status`)? Otherwise stop what listens "
                f"there (`ss -ltnp 'sport = :{port}'` shows it) or set {name}_PORT to another port."
            )


def _services(settings: Settings) -> tuple[list[Service], tuple[str, str, str]]:
    """What is to be started, in this order, and the addresses of Kafka, MongoDB and S3."""
    folder, ports = settings.folder, settings.ports
    providers = MockProviders(folder, ports["PROVIDERS"], settings.provider_sizes, settings.host)
    if settings.services == "compose":
        compose = Compose(folder, ports, settings.provider_sizes, settings.host)
        return [compose], compose.addresses
    if settings.external is not None:
        kafka_address, mongo_address, s3_address = settings.external.values()
        return [providers], (kafka_address, mongo_address, s3_address)
    kafka = Kafka(folder, ports["KAFKA"], settings.host)
    mongo = Mongo(folder, ports["MONGO"], settings.host)
    s3 = S3(folder, ports["S3"], settings.host)
    return [kafka, mongo, s3, providers], (kafka.address, mongo.address, s3.address)


def check_environment(template: Template) -> None:
    """Read each function's settings as it will read them itself. Raises SettingsError, which names the variable."""
    for function in template.functions.values():
        try:
            ServiceSettings.from_env(function.environment)
        except ServiceSettingsError as error:
            raise SettingsError(
                f"The functions would not start: {error} (README.md has every parameter under Settings)."
            ) from error


def _start_services(wanted: Sequence[Service], running: list[Service]) -> None:
    """Start all at once, and wait until they serve; `running` gets each before its start."""
    started = time.monotonic()
    for service in wanted:
        running.append(service)
        service.start()
    for service in wanted:
        service.wait_ready()
        log.info("%s is ready at %s after %.1f s", service.name, service.address, time.monotonic() - started)


def _start_sam(settings: Settings, parameters: dict[str, str], running: list[Service]) -> None:
    """Build the functions and start sam's Lambda service in the place of ours."""
    folder = settings.folder / "sam"
    folder.mkdir(exist_ok=True)
    log.info("building the functions with sam")
    build(TEMPLATE, folder)
    # sam gives a reference to a resource as the resource's name in the template.
    sam = Sam(folder, parameters, {"BACKUP_BUCKET": parameters["BackupBucketName"]}, settings.image)
    server = SamServer("start-lambda", sam, settings.folder, settings.ports["LAMBDA"])
    running.append(server)
    server.start()
    server.wait_ready()
    log.info("sam local %s is ready at %s", server.command_name, server.address)


def _prepare_external(kafka: str, _mongo: str, s3: str) -> None:
    try:
        create_topics(kafka)
        create_bucket(s3)
    except NOT_READY as error:
        raise ServiceError(
            f"The external services can't be used: {error!r}. Are KAFKA_BOOTSTRAP_SERVERS and S3_ENDPOINT_URL right?"
        ) from error


async def _serve(
    settings: Settings, template: Template, kafka: str, running: Sequence[Service], throw_away: bool
) -> None:
    """Serve the template until a signal comes, then stop in the order opposite to the start, or at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        if throw_away:
            loop.add_signal_handler(number, _end_at_once, running)
        else:
            loop.add_signal_handler(number, stop.set)
    try:
        mappings = [_mapping(settings, template, one, kafka) for one in template.mappings]
        schedules = Schedules(template.schedules, settings.lambda_address)
    except ValueError as error:
        raise SettingsError(str(error)) from error

    async def show_mappings(_request: Request) -> JSONResponse:
        return JSONResponse([dataclasses.asdict(mapping.status()) for mapping in mappings])

    async with AsyncExitStack() as stack:
        if not settings.by_sam:
            credentials = _CREDENTIALS
            if settings.secrets_endpoint:
                credentials = credentials | {"AWS_ENDPOINT_URL_SECRETS_MANAGER": settings.secrets_endpoint}
            functions = LambdaService(
                template.functions, credentials=credentials, default_concurrency=settings.concurrency
            )
            functions.start()
            stack.push_async_callback(functions.stop)
            app = invoke_app(functions)
            app.routes.append(Route("/mappings", show_mappings))
            await stack.enter_async_context(serve(app, settings.ports["LAMBDA"]))
        stack.push_async_callback(_stop_mappings, mappings)
        for mapping in mappings:
            mapping.start()
        seconds = _SAM_SECONDS if settings.by_sam else INTEGRATION_SECONDS
        apis: dict[str, Authorizer] = {"API": by_iam}
        if settings.by_jwt:
            issuer = Issuer(settings.issuer_address, AUDIENCE)
            await stack.enter_async_context(serve(issuer.app, settings.ports["ISSUER"]))
            apis["USER_API"] = JwtAuthorizer(settings.issuer_address, [AUDIENCE])
        for name, authorizer in apis.items():
            api = HttpApi(template, settings.lambda_address, authorizer, integration_seconds=seconds)
            stack.callback(api.close)
            await stack.enter_async_context(serve(api.app, settings.ports[name]))
        schedules.start()
        stack.push_async_callback(schedules.stop)
        log.info("%d functions and %d Kafka mappings are up, the API at %s",
                 len(template.functions), len(mappings), settings.api_address)  # fmt: skip
        await _supervise(settings, running, stop)
        log.info("stopping")


def _mapping(settings: Settings, template: Template, one: KafkaMapping, kafka: str) -> EventSourceMapping:
    timeout = template.functions[one.function].timeout
    return EventSourceMapping(one, kafka, settings.lambda_address, function_timeout=timeout)


async def _stop_mappings(mappings: Sequence[EventSourceMapping]) -> None:
    await asyncio.gather(*(asyncio.to_thread(mapping.stop) for mapping in mappings))


async def _supervise(settings: Settings, running: Sequence[Service], stop: asyncio.Event) -> None:
    """Start again, in this thread, what died; keep the state file right."""
    _write_state(settings, running)
    last_start = dict.fromkeys(running, 0.0)
    while not stop.is_set():
        for service in running:
            if service.running or time.monotonic() < last_start[service] + _RESTART_SECONDS:
                continue
            last_start[service] = time.monotonic()
            code = service.process.returncode if service.process else None
            log.error("%s ended with code %s and is started again; the end of %s:\n%s",
                      service.name, code, service.log, service.last_lines(5))  # fmt: skip
            try:
                service.start()
            except ServiceError as error:
                log.error("%s", error)
            _write_state(settings, running)
        try:
            await asyncio.wait_for(stop.wait(), _CHECK_SECONDS)
        except TimeoutError:
            continue


def _write_state(settings: Settings, running: Sequence[Service]) -> None:
    state = RunState(
        pid=os.getpid(),
        choices=settings.choices,
        host=settings.host,
        ports=dict(settings.ports),
        services={service.name: service.pid for service in running},
    )
    write_state(settings, state)
