"""`GET /sites/{siteId}/retention`: what would be kept or removed, and why."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap
from sitebackup.entrypoints import http
from sitebackup.entrypoints.views import decision_view
from sitebackup.telemetry import logger, metrics

app = http.resolver({"GET /sites/{siteId}/retention": ("limit", "cursor")})
get_retention = Bootstrap.from_env().get_retention()


@app.get("/sites/<site_id>/retention")
def get(site_id: str) -> Response[str]:
    """A dry run; it changes nothing."""
    query = app.current_event.query_string_parameters
    before = http.parse_id(query["cursor"], "cursor") if "cursor" in query else None
    found, cursor = get_retention(site_id, http.parse_int(query, "limit", 50, 1, 100), before)
    backups = [decision_view(job, decision) for job, decision in found]
    return http.ok({"backups": backups, **({"cursor": cursor} if cursor else {})})


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return app.resolve(event, context)
