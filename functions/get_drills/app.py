"""`GET /drills`: how much of what is stored is proven to open."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap
from sitebackup.domain.errors import BadRequest
from sitebackup.domain.principal import Scope
from sitebackup.entrypoints import http
from sitebackup.entrypoints.drill_views import drills_view, site_view
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
app = http.resolver(bootstrap.settings.claims, {"GET /drills": ("userId", "siteId")})
get_drills = bootstrap.get_drills()


@app.get("/drills")
def get() -> Response[str]:
    """The coverage of all sites, which is for services; with a site, what is known of that one as well."""
    access = http.access(app, Scope.READ)
    query = app.current_event.query_string_parameters
    named = http.parse_id(query["userId"], "userId") if "userId" in query else None
    coverage = drills_view(get_drills()) if access.user_id is None else {}
    if "siteId" not in query:
        if named is not None or access.user_id is not None:
            raise BadRequest("siteId: required with a user")
        return http.ok(coverage)
    site_id = http.parse_id(query["siteId"], "siteId")
    site = get_drills.of_site(access, access.one_user(named), site_id)
    return http.ok({**coverage, "site": site_view(site)})


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return app.resolve(event, context)
