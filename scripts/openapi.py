"""Writes the OpenAPI description of the HTTP API: python -m scripts.openapi docs/openapi.json (`make openapi`).

It is made of the routes that the functions declare and of the types that they answer with, so nothing is said twice.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from local.template.intrinsics import parse
from scripts.openapi_examples import EXAMPLES
from sitebackup.backup.create_job import MAX_KEY_LENGTH
from sitebackup.domain.errors import (
    BadRequest,
    Conflict,
    MissingScope,
    NoCaller,
    NotFound,
    NoUser,
    ServiceOnly,
    Unavailable,
)
from sitebackup.domain.model import Model
from sitebackup.entrypoints.problems import INTERNAL, PROBLEMS, Problem, ProblemView
from sitebackup.entrypoints.routes import Route

ROOT = Path(__file__).parents[1]
Json = dict[str, Any]
ENVIRONMENT = {
    "PROVIDERS": '[{"name": "site", "exportUrl": "https://site.example.com"}]',
    "BACKUP_BUCKET": "backups",
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9098",
    "MONGO_URI": "mongodb://mongo",
}
"""What a function needs to start; it connects to nothing until it is called."""
ALWAYS = (BadRequest, NoCaller, NoUser, MissingScope, Conflict, Unavailable)
"""What any route may answer, beside a bug."""
GATEWAY = {
    401: "API Gateway takes no such token.",
    403: "API Gateway knows no such caller.",
    404: "API Gateway does not have the route.",
    413: "The request is too large.",
    429: "API Gateway's rate limits are exceeded.",
    500: "A function can't be started.",
    503: "A function does not answer in time.",
}
"""What API Gateway itself answers, in the place of a function."""
TITLES = {
    200: "As asked for.",
    202: "Accepted; it goes on in the background.",
    204: "Done.",
    302: "Where the bytes are.",
}
HEADERS: Json = {
    "Cache-Control": {"required": True, "schema": {"const": "no-store"}},
    "Location": {"required": True, "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds.", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "RateLimit": {"description": "What is left of the quota.", "schema": {"type": "string"}},
    "RateLimit-Policy": {"description": "The quota, and its window.", "schema": {"type": "string"}},
}
HEADERS_OF = {
    200: ("Cache-Control",),
    202: ("Cache-Control", "Location"),
    302: ("Cache-Control", "Location"),
    429: ("Retry-After", "RateLimit", "RateLimit-Policy"),
    503: ("Retry-After",),
}
"""By the status of an answer."""
SECURITY: Json = {
    "signature": {
        "type": "apiKey",
        "in": "header",
        "name": "Authorization",
        "description": "A service signs with AWS IAM (Signature Version 4, service execute-api).",
        "x-amazon-apigateway-authtype": "awsSigv4",
    },
    "token": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A user sends a token of the issuer; it must hold the scope that the route names.",
    },
}
DESCRIPTION = """\
Backs up what SaaS platforms hold for their customers, and gives it back. There are two APIs with these routes: \
services sign with AWS IAM and act for every user, users send a JWT. What the fields mean is in docs/api.md.\
"""


def routes() -> list[Route]:
    """What the functions of the template declare, in its order."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    found: list[Route] = []
    for resource in parse((ROOT / "template.yaml").read_text())["Resources"].values():
        properties = resource.get("Properties", {})
        if any(event["Type"] == "HttpApi" for event in properties.get("Events", {}).values()):
            found += import_module(f"{properties['CodeUri'].replace('/', '.')}.app").api.routes
    return found


def document(declared: Iterable[Route]) -> Json:
    """The whole description."""
    declared = list(declared)
    answers = {each for route in declared for kinds in route.answers.values() for each in _kinds(kinds)}
    bodies = {route.body for route in declared if route.body}
    schemas = {
        **_schemas(bodies),
        **_without_null(_schemas([*answers, ProblemView])),
        "Message": {
            "type": "object",
            "required": ["message"],
            "properties": {"message": {"type": ["string", "null"]}},
            "description": "What API Gateway itself answers.",
        },
    }
    for kind in bodies | answers:
        schemas[_name(kind.__name__)]["examples"] = [_example(kind)]
    responses: Json = {}
    paths: Json = {}
    for route in declared:
        method, _, path = route.key.partition(" ")
        paths.setdefault(path, {})[method.lower()] = _operation(route, responses)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Site Backup",
            "version": project["version"],
            "description": DESCRIPTION,
            "license": {"name": project["license"], "identifier": project["license"]},
        },
        "servers": [{"url": "/", "description": "The API that gives this description."}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "responses": dict(sorted(responses.items())),
            "headers": HEADERS,
            "securitySchemes": SECURITY,
        },
    }


def _operation(route: Route, responses: Json) -> Json:
    """One route; what several answer alike is kept among the `responses`."""
    method, _, path = route.key.partition(" ")
    parts = [part for part in re.split(r"[/{}-]+", path) if part]
    found: Json = {
        "operationId": method.lower() + "".join(part[0].upper() + part[1:] for part in parts),
        "summary": " ".join(route.summary.split()),
        "tags": [parts[0]],
        "security": _security(route),
    }
    if parameters := _parameters(route):
        found["parameters"] = parameters
    if route.body:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": _media((route.body,))},
        }
    found["responses"] = {
        str(status): _answer(status, _kinds(kinds)) for status, kinds in sorted(route.answers.items())
    } | {str(status): _refusal(status, route, responses) for status in _refusals(route)}
    return found


def _security(route: Route) -> list[Json]:
    signature: Json = {"signature": []}
    return [signature] if ServiceOnly in route.problems else [signature, {"token": [route.scope.value]}]


def _parameters(route: Route) -> list[Json]:
    variables = [
        {"name": name, "in": "path", "required": True, "schema": _plain(msgspec.json.schema(kind))}
        for name, kind in route.variables.items()
    ]
    of_query: Json = {}
    if route.query:
        of_query = _without_null(_schemas([route.query]))[_name(route.query.__name__)]["properties"]
    query = [{"name": name, "in": "query", "schema": schema} for name, schema in of_query.items()]
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A repeated request with the same key answers what the first one made.",
        "schema": {"type": "string", "pattern": f"^[ -~]{{1,{MAX_KEY_LENGTH}}}$"},
    }
    return [*variables, *query, *([key] if route.takes_key else [])]


def _answer(status: int, kinds: tuple[type[Model], ...]) -> Json:
    found: Json = {"description": TITLES[status], **_headers(status)}
    if kinds:
        found["content"] = {"application/json": _media(kinds)}
    return found


def _refusals(route: Route) -> list[int]:
    """The statuses of what the function and the gateway may answer instead."""
    problems = {PROBLEMS[each].status for each in (*ALWAYS, *route.problems)}
    of_gateway = GATEWAY.keys() - (set() if route.body else {413}) - (set() if route.variables else {404})
    return sorted(problems | of_gateway)


def _refusal(status: int, route: Route, responses: Json) -> Json:
    raised = (*ALWAYS, *route.problems, *((NotFound,) if route.variables else ()))
    problems = {each.type: each for each in (*(PROBLEMS[one] for one in raised), INTERNAL)}
    own = [each for each in problems.values() if each.status == status]
    name = "-".join([str(status), *(each.type for each in own)])
    if name not in responses:
        told = [each.title for each in own] + ([GATEWAY[status]] if status in GATEWAY else [])
        content = {"application/problem+json": {"schema": _problem(status, own)}} if own else {}
        if status in GATEWAY:
            content["application/json"] = {"schema": _reference("Message")}
        responses[name] = {"description": " Or: ".join(told), **_headers(status), "content": content}
    return {"$ref": f"#/components/responses/{name}"}


def _problem(status: int, own: list[Problem]) -> Json:
    narrowed = {"status": {"const": status}, "type": {"enum": [each.type for each in own]}}
    return {"allOf": [_reference("Problem"), {"properties": narrowed}]}


def _headers(status: int) -> Json:
    names = HEADERS_OF.get(status, ())
    found = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
    return {"headers": found} if found else {}


def _media(kinds: tuple[type[Model], ...]) -> Json:
    """A body of one of these types."""
    references = [_reference(_name(each.__name__)) for each in kinds]
    return {"schema": references[0] if len(references) == 1 else {"anyOf": references}}


def _example(kind: type[Model]) -> Json:
    text = msgspec.json.encode(EXAMPLES[kind])
    msgspec.json.decode(text, type=kind)  # raises, if the example is none
    example: Json = json.loads(text)
    return example


def _kinds(kinds: type[Model] | tuple[type[Model], ...] | None) -> tuple[type[Model], ...]:
    if kinds is None:
        return ()
    return kinds if isinstance(kinds, tuple) else (kinds,)


def _schemas(kinds: Iterable[type[Model]]) -> Json:
    """Of the types, and of all that they are made of, by name."""
    _, found = msgspec.json.schema_components(
        sorted(kinds, key=lambda kind: kind.__name__), ref_template="#/components/schemas/{name}"
    )
    renamed: Json = {_name(name): _plain(schema) for name, schema in found.items()}
    assert len(renamed) == len(found), "two types would have one name"
    return renamed


def _name(name: str) -> str:
    """Callers see a job, not the view of one."""
    return name.removesuffix("View")


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _plain(schema: Any) -> Any:
    r"""As JSON Schema has it: `$` is what Python calls `\Z`, and types are called what callers call them."""
    if isinstance(schema, dict):
        return {key: _plain(value) for key, value in schema.items() if key != "title"}
    if isinstance(schema, list):
        return [_plain(each) for each in schema]
    if isinstance(schema, str):
        return _name(schema) if schema.startswith("#/") else schema.replace(r"\Z", "$")
    return schema


def _without_null(schemas: Mapping[str, Json]) -> Json:
    """Of what leaves out whatever is not known."""
    for schema in schemas.values():
        properties = schema.get("properties", {})
        for name, each in properties.items():
            others = [one for one in each.get("anyOf", ()) if one != {"type": "null"}]
            if len(others) == 1:
                rest = {key: value for key, value in each.items() if key not in ("anyOf", "default")}
                properties[name] = {**others[0], **rest}
    return dict(schemas)


if __name__ == "__main__":
    text = json.dumps(document(routes()), indent=2, ensure_ascii=False) + "\n"
    Path(sys.argv[1]).write_text(text)
