"""What a route takes and gives: `http` checks requests by it, and docs/openapi.json is made of it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_type_hints

import msgspec

from ..domain.errors import RequestError
from ..domain.model import Id, Model, ProviderName
from ..domain.principal import Scope

type Answers = Mapping[int, type[Model] | tuple[type[Model], ...] | None]
"""By status what the answer holds: one of these types, or nothing."""


class OpenApi(Model, frozen=True, kw_only=True):
    """An OpenAPI description: https://spec.openapis.org/oas/v3.1.1.html."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]


@dataclass(frozen=True)
class Route:
    """One route, by the signature of its handler and what stands beside it."""

    key: str
    """As API Gateway calls it, such as `GET /backup/{jobId}`."""
    scope: Scope
    answers: Answers
    problems: tuple[type[RequestError], ...]
    """What it may raise beside what every route may."""
    handler: Callable[..., Any]

    @cached_property
    def summary(self) -> str:
        """What it does, in a sentence or two."""
        return (self.handler.__doc__ or "").strip()

    @cached_property
    def variables(self) -> dict[str, Any]:
        """The types of what stands in its path, by name."""
        names = re.findall(r"\{(\w+)\}", self.key)
        return {name: ProviderName if name == "provider" else Id for name in names}

    @cached_property
    def query(self) -> type[Model] | None:
        """What its query string holds."""
        return self._takes.get("query")

    @cached_property
    def body(self) -> type[Model] | None:
        """What its body holds."""
        return self._takes.get("body")

    @cached_property
    def takes_key(self) -> bool:
        """Whether it heeds an Idempotency-Key."""
        return "idempotency_key" in self._takes

    @cached_property
    def numbers(self) -> set[str]:
        """Those of the query's parameters that are whole numbers."""
        found = msgspec.json.schema(self.query)["$defs"][self.query.__name__] if self.query else {}
        return {
            name
            for name, schema in found.get("properties", {}).items()
            if "integer" in [each.get("type") for each in (schema, *schema.get("anyOf", ()))]
        }

    @cached_property
    def _takes(self) -> dict[str, Any]:
        return get_type_hints(self.handler)
