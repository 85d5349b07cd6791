"""What every HTTP function shares: its routes, answers, problems."""

import json
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.utilities.typing import LambdaContext

from ..domain.errors import RequestError
from ..domain.model import Model
from ..domain.principal import Claims, Scope
from ..domain.quota import OverQuota
from ..telemetry import logger
from .parsing import parse_body, parse_query, parse_variable, reject_unknown
from .principal import principal_of
from .problems import INTERNAL, Problem, ProblemView, problem
from .quota_views import rate_limit_headers
from .routes import Answers, Route

type Handler = Callable[..., Response[str]]


class Api:
    """The routes of a function, which answer every error with problem details."""

    def __init__(self, claims: Claims) -> None:
        """`claims` say who calls. Who is not known by an authorizer is refused before anything else."""
        self.routes: list[Route] = []
        self._claims = claims
        self._app = APIGatewayHttpResolver()
        self._app.not_found(_no_route)
        self._app.exception_handler(Exception)(_failed)

    def route(
        self, key: str, scope: Scope, answers: Answers, *problems: type[RequestError]
    ) -> Callable[[Handler], Handler]:
        """Declares a route, such as `GET /backup/{jobId}`, by the handler's signature.

        A handler is given `access`, which is what the caller may reach, the variables of the path and, if it names
        them, `query`, `body` and `idempotency_key`. What is not of the type that it names is refused before that.
        """

        def declare(handler: Handler) -> Handler:
            route = Route(key, scope, answers, problems, handler)
            self.routes.append(route)
            method, _, path = key.partition(" ")

            def serve(**_: str) -> Response[str]:
                return self._serve(route)

            self._app.route(path.replace("{", "<").replace("}", ">"), method)(serve)
            return handler

        return declare

    def resolve(self, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        """Answers an HTTP API event, payload format 2.0."""
        return self._app.resolve(event, context)

    @property
    def context(self) -> LambdaContext:
        """Of the present invocation."""
        return self._app.lambda_context

    def _serve(self, route: Route) -> Response[str]:
        event = self._app.current_event
        principal = principal_of(event.get("requestContext") or {}, self._claims)
        reject_unknown(event.query_string_parameters, route.query)
        # As API Gateway has it: the router's own pattern lets a line feed at the end of the path pass unseen.
        given: dict[str, Any] = {
            _snake(name): parse_variable(event.path_parameters[name], name, kind)
            for name, kind in route.variables.items()
        }
        given["access"] = principal.may(route.scope)
        if route.query:
            given["query"] = parse_query(event.query_string_parameters, route.query, route.numbers)
        if route.body:
            given["body"] = parse_body(event, route.body)
        if route.takes_key:
            given["idempotency_key"] = event.headers.get("idempotency-key")
        answer: Response[str] = route.handler(**given)
        return answer


def ok_text(document: str) -> Response[str]:
    """200, with JSON that is made already."""
    return _answer(HTTPStatus.OK, document, {})


def accepted(view: Model, location: str) -> Response[str]:
    """202, and where what was accepted can be followed."""
    return _answer(HTTPStatus.ACCEPTED, _json(view), {"Location": location})


def ok(document: Model) -> Response[str]:
    """200."""
    return _answer(HTTPStatus.OK, _json(document), {})


def found(location: str) -> Response[str]:
    """302."""
    headers = {"Location": location, "Cache-Control": "no-store"}
    return Response(status_code=HTTPStatus.FOUND, body="", headers=headers)


def no_content() -> Response[str]:
    """204."""
    return Response(status_code=HTTPStatus.NO_CONTENT, body="")


def _json(document: Model) -> str:
    return msgspec.json.encode(document).decode()


def _answer(status: int, text: str, headers: dict[str, Any]) -> Response[str]:
    return Response(
        status_code=status,
        content_type="application/json",
        body=text,
        headers={"Cache-Control": "no-store", **headers},
    )


def _no_route(error: NotFoundError) -> Response[str]:
    return _problem(Problem(404, "not-found", "There is no such route."), str(error), {})


def _failed(error: Exception) -> Response[str]:
    found = problem(error)
    if found is INTERNAL:
        logger.exception("unexpected error")
        return _problem(found, "The error is in the log.", {})
    if found.status >= 500:
        logger.warning("request not served", extra={"error": str(error)})
    headers = rate_limit_headers(error) if isinstance(error, OverQuota) else {}
    return _problem(found, str(error), error.members if isinstance(error, RequestError) else {}, headers)


def _problem(
    found: Problem, detail: str, members: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response[str]:
    document = {"type": found.type, "title": found.title, "status": found.status, "detail": detail, **members}
    return Response(
        status_code=found.status,
        content_type="application/problem+json",
        body=json.dumps(msgspec.to_builtins(msgspec.convert(document, ProblemView))),
        headers={**({"Retry-After": str(found.retry_after)} if found.retry_after else {}), **(headers or {})},
    )


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)
