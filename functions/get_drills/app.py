"""`GET /drills`: how much of what is stored is proven to open."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap
from sitebackup.domain.errors import BadRequest
from sitebackup.domain.principal import Scope
from sitebackup.entrypoints import http
from sitebackup.entrypoints.drill_views import OneSiteView, coverage_view, site_view
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
app = http.resolver(bootstrap.settings.claims, {"GET /drills": ("userId", "siteId")})
get_drills = bootstrap.get_drills()


@app.get("/drills")
def get() -> Response[str]:
    """The coverage of all sites, which is for services; with a site, what is known of that one as well."""
    access = http.access(app, Scope.READ)
    ids = http.parse_ids(app.current_event.query_string_parameters, "userId", "siteId")
    if "siteId" not in ids:
        if "userId" in ids or access.user_id is not None:
            raise BadRequest("siteId: required with a user")
        return http.ok(coverage_view(get_drills(), None))
    site = site_view(get_drills.of_site(access, access.one_user(ids.get("userId")), ids["siteId"]))
    return http.ok(OneSiteView(site=site) if access.user_id else coverage_view(get_drills(), site))


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return app.resolve(event, context)
