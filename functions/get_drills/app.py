"""`GET /drills`: how much of what is stored is proven to open. And `GET /openapi.json`, which needs nothing else."""

from functools import cache
from pathlib import Path
from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap
from sitebackup.domain.errors import BadRequest, NotFound, NotYourUser
from sitebackup.domain.principal import Access, Scope
from sitebackup.entrypoints import http, queries
from sitebackup.entrypoints.drill_views import CoverageView, OneSiteView, coverage_view, site_view
from sitebackup.entrypoints.routes import OpenApi
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
api = http.Api(bootstrap.settings.claims)
get_drills = bootstrap.get_drills()


@api.route("GET /drills", Scope.READ, {200: (CoverageView, OneSiteView)}, NotYourUser, NotFound)
def get(access: Access, query: queries.Drills) -> Response[str]:
    """The coverage of all sites, which is for services; with a site, what is known of that one as well."""
    if query.site_id is None:
        if query.user_id is not None or access.user_id is not None:
            raise BadRequest("siteId: required with a user")
        return http.ok(coverage_view(get_drills(), None))
    site = site_view(get_drills.of_site(access, access.one_user(query.user_id), query.site_id))
    return http.ok(OneSiteView(site=site) if access.user_id else coverage_view(get_drills(), site))


@api.route("GET /openapi.json", Scope.READ, {200: OpenApi})
def get_openapi(access: Access) -> Response[str]:
    """This description."""
    return http.ok_text(_openapi())


@cache
def _openapi() -> str:
    return (Path(__file__).parent / "openapi.json").read_text()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return api.resolve(event, context)
