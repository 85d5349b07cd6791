"""`GET /drills`: how much of what is stored is proven to open."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap
from sitebackup.domain.errors import BadRequest
from sitebackup.entrypoints import http
from sitebackup.entrypoints.drill_views import drills_view, site_view
from sitebackup.telemetry import logger, metrics

app = http.resolver({"GET /drills": ("userId", "siteId")})
get_drills = Bootstrap.from_env().get_drills()


@app.get("/drills")
def get() -> Response[str]:
    """The coverage of all sites; with `userId` and `siteId`, what is known of that site as well."""
    query = app.current_event.query_string_parameters
    ids = {name: http.parse_id(query[name], name) for name in ("userId", "siteId") if name in query}
    if len(ids) == 1:
        missing = "siteId" if "userId" in ids else "userId"
        raise BadRequest(f"{missing}: required with {next(iter(ids))}")
    site = {"site": site_view(get_drills.of_site(ids["userId"], ids["siteId"]))} if ids else {}
    return http.ok({**drills_view(get_drills()), **site})


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return app.resolve(event, context)
