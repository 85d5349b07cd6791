"""`GET /sites/{siteId}/retention`: what would be kept or removed, and why."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap
from sitebackup.domain.errors import NotYourUser
from sitebackup.domain.principal import Access, Scope
from sitebackup.entrypoints import http, queries
from sitebackup.entrypoints.retention_views import RetentionView, decision_view
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
api = http.Api(bootstrap.settings.claims)
get_retention = bootstrap.get_retention()


@api.route("GET /sites/{siteId}/retention", Scope.READ, {200: RetentionView}, NotYourUser)
def get(access: Access, query: queries.Retention, site_id: str) -> Response[str]:
    """What would be kept or removed, and why: a dry run that changes nothing."""
    found, cursor = get_retention(access, query.user_id, site_id, query.limit, query.cursor)
    backups = [decision_view(job, decision) for job, decision in found]
    return http.ok(RetentionView(backups=backups, cursor=cursor))


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return api.resolve(event, context)
