"""`GET /sites/{siteId}/retention`: what would be kept or removed, and why."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap
from sitebackup.domain.principal import Scope
from sitebackup.entrypoints import http
from sitebackup.entrypoints.retention_views import RetentionView, decision_view
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
app = http.resolver(
    bootstrap.settings.claims, {"GET /sites/{siteId}/retention": ("userId", "limit", "cursor")}
)
get_retention = bootstrap.get_retention()


@app.get("/sites/<site_id>/retention")
def get(site_id: str) -> Response[str]:
    """A dry run; it changes nothing."""
    access = http.access(app, Scope.READ)
    query = app.current_event.query_string_parameters
    ids = http.parse_ids(query, "userId", "cursor")
    limit = http.parse_int(query, "limit", 50, 1, 100)
    found, cursor = get_retention(access, ids.get("userId"), site_id, limit, ids.get("cursor"))
    backups = [decision_view(job, decision) for job, decision in found]
    return http.ok(RetentionView(backups=backups, cursor=cursor))


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return app.resolve(event, context)
