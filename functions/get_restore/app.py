"""`GET /restores/{restoreId}` and `GET /restores`: how restores stand."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, now
from sitebackup.domain.errors import NotFound, NotYourUser
from sitebackup.domain.principal import Access, Scope
from sitebackup.entrypoints import http, queries
from sitebackup.entrypoints.restore_views import RestoresView, RestoreView, restore_view
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
api = http.Api(bootstrap.settings.claims)
get_restore = bootstrap.get_restore()


@api.route("GET /restores/{restoreId}", Scope.READ, {200: RestoreView}, NotFound)
def get_one(access: Access, query: queries.Wait, restore_id: str) -> Response[str]:
    """The restore; with `wait` (seconds) and `since` (a version), as soon as it has changed."""
    return http.ok(restore_view(get_restore(access, restore_id, query.wait, query.since), now()))


@api.route("GET /restores", Scope.READ, {200: RestoresView}, NotYourUser)
def get_page(access: Access, query: queries.Restores) -> Response[str]:
    """A page of restores, newest first; `siteId` is that of the site that is restored."""
    filters = {
        "siteId": query.site_id,
        "userId": query.user_id,
        "jobId": query.job_id,
        "status": query.status,
    }
    restores, cursor = get_restore.page(access, filters, query.limit, query.cursor)
    at = now()
    found = [restore_view(restore, at) for restore in restores]
    return http.ok(RestoresView(restores=found, cursor=cursor))


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return api.resolve(event, context)
