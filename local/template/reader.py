"""Reads a SAM template into what a local run serves: functions, Kafka mappings, routes and schedules.

Follows the AWS SAM specification for AWS::Serverless::Function, its HttpApi, MSK, Schedule and ScheduleV2
events, and Globals; and the CloudFormation reference for AWS::Lambda::EventSourceMapping, with its defaults.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .intrinsics import NO_VALUE, Intrinsics, TemplateError, parse, text
from .model import Cors, Function, KafkaMapping, Route, Schedule, Template

log = logging.getLogger(__name__)

_FUNCTION = "AWS::Serverless::Function"
_UNIT_SECONDS = {"minute": 60, "hour": 3600, "day": 86400}
_DEFAULT_WINDOW_SECONDS = 0.5  # Lambda developer guide, "Batching behavior" of Kafka sources
_RETRIES_WITH_DESTINATION = 10  # the same, "Using a Kafka topic as an on-failure destination"


def load(path: Path, parameters: Mapping[str, str]) -> Template:
    """The template at `path` under the given parameter values. Raises TemplateError with a sentence."""
    try:
        document = parse(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TemplateError(f"Cannot read the template {path}: {error.strerror}.") from error
    return _Reader(document, parameters, path.resolve().parent).read()


class _Reader:
    def __init__(self, document: dict[str, Any], parameters: Mapping[str, str], root: Path) -> None:
        self._root = root
        self._resources: dict[str, Any] = document.get("Resources") or {}
        self._globals: dict[str, Any] = document.get("Globals") or {}
        self._intrinsics = Intrinsics(document, parameters)
        self._functions: dict[str, Function] = {}
        self._mappings: list[KafkaMapping] = []
        self._routes: list[Route] = []
        self._schedules: list[Schedule] = []

    def read(self) -> Template:
        for name, properties in self._of_type(_FUNCTION):
            merged = _merge(self._globals.get("Function") or {}, properties)
            self._functions[name] = self._function(name, merged)
            for event_name, event in (merged.get("Events") or {}).items():
                self._event(name, event_name, event)
        for name, properties in self._of_type("AWS::Lambda::EventSourceMapping"):
            function = text(self._get(properties, "FunctionName", name)).rsplit(":", 1)[-1]
            self._mapping(name, function, properties)
        for mapping in self._mappings:
            if mapping.function not in self._functions:
                raise TemplateError(f"{mapping.name}: there is no function {mapping.function!r} here.")
        return Template(
            functions=self._functions,
            mappings=tuple(self._mappings),
            routes=tuple(self._routes),
            schedules=tuple(self._schedules),
            cors=self._cors(),
        )

    def _of_type(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, resource in self._resources.items():
            if not isinstance(resource, dict) or resource.get("Type") != kind:
                continue
            condition = resource.get("Condition")
            if condition is None or self._intrinsics.condition(condition, name):
                yield name, resource.get("Properties") or {}

    def _get(self, properties: Mapping[str, Any], key: str, where: str, default: Any = NO_VALUE) -> Any:
        value = self._intrinsics.resolve(properties.get(key, NO_VALUE), f"{where}.{key}")
        if value is not NO_VALUE:
            return value
        if default is NO_VALUE:
            raise TemplateError(f"{where}: {key} is missing.")
        return default

    def _int(
        self, properties: Mapping[str, Any], key: str, where: str, default: int, low: int, high: int
    ) -> int:
        value = self._get(properties, key, where, default)
        try:
            number = int(value)
        except (TypeError, ValueError):
            raise TemplateError(f"{where}: {key} is {value!r}, not a whole number.") from None
        if not low <= number <= high:
            raise TemplateError(f"{where}: {key} is {number}; it must be from {low} to {high}.")
        return number

    def _flag(self, properties: Mapping[str, Any], key: str, where: str, default: bool) -> bool:
        value = text(self._get(properties, key, where, default)).lower()
        if value not in ("true", "false"):
            raise TemplateError(f"{where}: {key} is {value!r}, not true or false.")
        return value == "true"

    def _folder(self, properties: Mapping[str, Any], key: str, where: str) -> Path:
        value = self._get(properties, key, where)
        folder = self._root / text(value)
        if not isinstance(value, str) or not folder.is_dir():
            raise TemplateError(f"{where}: {key} {value!r} is not a folder next to the template.")
        return folder.resolve()

    def _function(self, name: str, properties: Mapping[str, Any]) -> Function:
        runtime = text(self._get(properties, "Runtime", name))
        if not runtime.startswith("python3"):
            raise TemplateError(f"{name}: Runtime {runtime!r} is not served locally, only python3 is.")
        code = self._folder(properties, "CodeUri", name)
        variables = self._get(properties, "Environment", name, {}).get("Variables", {})
        concurrency = self._int(properties, "ReservedConcurrentExecutions", name, -1, -1, 1_000_000)
        return Function(
            name=name,
            folder=code.name,
            handler=text(self._get(properties, "Handler", name)),
            code=code,
            layers=tuple(self._layers(name, properties)),
            environment={str(key): text(value) for key, value in variables.items()},
            timeout=self._int(properties, "Timeout", name, 3, 1, 900),
            memory=self._int(properties, "MemorySize", name, 128, 128, 10_240),
            concurrency=None if concurrency < 0 else concurrency,
        )

    def _layers(self, name: str, properties: Mapping[str, Any]) -> Iterator[Path]:
        layers = dict(self._of_type("AWS::Serverless::LayerVersion"))
        for layer in self._get(properties, "Layers", name, []):
            if layer in layers:
                yield self._folder(layers[layer], "ContentUri", layer)
            else:
                log.warning("%s: layer %s is not in the template and is left out locally", name, layer)

    def _event(self, function: str, event_name: str, event: Mapping[str, Any]) -> None:
        name = f"{function}{event_name}"  # SAM names the resources of an event this way too
        kind, properties = event.get("Type"), event.get("Properties") or {}
        match kind:
            case "HttpApi":
                method = text(self._get(properties, "Method", name, "ANY")).upper()
                path = text(self._get(properties, "Path", name, "$default"))
                self._routes.append(
                    Route("ANY" if method == "X-AMAZON-APIGATEWAY-ANY-METHOD" else method, path, function)
                )
            case "MSK" | "SelfManagedKafka":
                self._mapping(name, function, properties)
            case "Schedule" | "ScheduleV2":
                self._schedule(name, function, properties)
            case _:
                raise TemplateError(f"{name}: events of type {kind!r} are not served locally.")

    def _mapping(self, name: str, function: str, properties: Mapping[str, Any]) -> None:
        if not self._flag(properties, "Enabled", name, True):
            return
        topics = self._get(properties, "Topics", name)
        if not isinstance(topics, list) or len(topics) != 1:
            raise TemplateError(f"{name}: Topics must be a list of one topic.")
        on_failure = self._get(properties, "DestinationConfig", name, {}).get("OnFailure", {})
        destination = on_failure.get("Destination")
        if destination is not None and not text(destination).startswith("kafka://"):
            raise TemplateError(
                f"{name}: the destination {destination!r} is not served locally, only kafka://topic is."
            )
        window = self._int(properties, "MaximumBatchingWindowInSeconds", name, -1, -1, 300)
        retries = self._int(properties, "MaximumRetryAttempts", name, -1, -1, 10_000)
        if retries < 0 and destination is not None:
            retries = _RETRIES_WITH_DESTINATION
        filters = self._get(properties, "FilterCriteria", name, {}).get("Filters", [])
        self._mappings.append(
            KafkaMapping(
                name=name,
                function=function,
                topic=text(topics[0]),
                batch_size=self._int(properties, "BatchSize", name, 100, 1, 10_000),
                window_seconds=_DEFAULT_WINDOW_SECONDS if window < 0 else float(window),
                report_item_failures="ReportBatchItemFailures"
                in self._get(properties, "FunctionResponseTypes", name, []),
                max_retries=retries,
                on_failure_topic=text(destination).removeprefix("kafka://") if destination else None,
                consumer_group=self._consumer_group(name, properties),
                starting_position=text(self._get(properties, "StartingPosition", name, "TRIM_HORIZON")),
                filters=tuple(text(entry["Pattern"]) for entry in filters),
                bisect=self._flag(properties, "BisectBatchOnFunctionError", name, False),
            )
        )

    def _consumer_group(self, name: str, properties: Mapping[str, Any]) -> str:
        # The SAM event has it at the top, the raw resource inside a config of the source; AWS makes one up
        # when there is none, here it is the mapping's name so that offsets last over restarts.
        for config in ("AmazonManagedKafkaEventSourceConfig", "SelfManagedKafkaEventSourceConfig"):
            if config in properties:
                properties = self._get(properties, config, name, {})
        return text(self._get(properties, "ConsumerGroupId", name, name))

    def _schedule(self, name: str, function: str, properties: Mapping[str, Any]) -> None:
        enabled = self._flag(properties, "Enabled", name, True)
        if not enabled or self._get(properties, "State", name, "ENABLED") == "DISABLED":
            return
        key = "Schedule" if "Schedule" in properties else "ScheduleExpression"
        expression = text(self._get(properties, key, name))
        rate = re.fullmatch(r"rate\((\d+) (minute|hour|day)s?\)", expression.strip())
        if rate is None or int(rate[1]) == 0:
            raise TemplateError(f"{name}: {key} {expression!r} is not served locally, only rate(...) is.")
        given = self._get(properties, "Input", name, None)
        try:
            payload = None if given is None else json.loads(given)
        except (TypeError, ValueError):
            raise TemplateError(f"{name}: Input is not a JSON text.") from None
        self._schedules.append(
            Schedule(name, function, float(int(rate[1]) * _UNIT_SECONDS[rate[2]]), payload)
        )

    def _cors(self) -> Cors | None:
        settings = self._globals.get("HttpApi") or {}
        for _, properties in self._of_type("AWS::Serverless::HttpApi"):
            settings = _merge(settings, properties)
        where = "HttpApi.CorsConfiguration"
        given = self._get(settings, "CorsConfiguration", "HttpApi", None)
        if given in (None, False):
            return None
        if given is True:
            return Cors(origins=("*",), methods=("*",), headers=("*",))
        if isinstance(given, str):
            return Cors(origins=(given,))
        if not isinstance(given, dict):
            raise TemplateError(f"{where} must be true, an origin or a mapping.")

        def several(key: str) -> tuple[str, ...]:
            value = given.get(key, [])
            if not isinstance(value, list):
                raise TemplateError(f"{where}.{key} must be a list.")
            return tuple(text(item) for item in value)

        return Cors(
            origins=several("AllowOrigins"),
            methods=several("AllowMethods"),
            headers=several("AllowHeaders"),
            expose_headers=several("ExposeHeaders"),
            max_age=self._int(given, "MaxAge", where, 0, -1, 86_400) if "MaxAge" in given else None,
            credentials=self._flag(given, "AllowCredentials", where, False),
        )


def _merge(base: Any, over: Any) -> Any:
    """SAM's rule for Globals: maps are merged, lists are added to the end, anything else is replaced."""
    if isinstance(base, dict) and isinstance(over, dict):
        if _is_intrinsic(base) or _is_intrinsic(over):
            return over
        shared = {key: _merge(base[key], over[key]) for key in base if key in over}
        return {**base, **over, **shared}
    if isinstance(base, list) and isinstance(over, list):
        return [*base, *over]
    return over


def _is_intrinsic(value: dict[str, Any]) -> bool:
    return len(value) == 1 and next(iter(value)).startswith(("Fn::", "Ref"))
