"""`GET /restores/{restoreId}` and `GET /restores`: how restores stand."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.backup.get_job import MAX_WAIT_SECONDS
from sitebackup.bootstrap import Bootstrap, now
from sitebackup.domain.errors import BadRequest
from sitebackup.domain.principal import Scope
from sitebackup.domain.restore import RestoreStatus
from sitebackup.entrypoints import http
from sitebackup.entrypoints.restore_views import RestoresView, restore_view
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
app = http.resolver(
    bootstrap.settings.claims,
    {
        "GET /restores/{restoreId}": ("wait", "since"),
        "GET /restores": ("siteId", "userId", "jobId", "status", "limit", "cursor"),
    },
)
get_restore = bootstrap.get_restore()


@app.get("/restores/<restore_id>")
def get_one(restore_id: str) -> Response[str]:
    """The restore; with `wait` (seconds) and `since` (a version), as soon as it has changed."""
    access = http.access(app, Scope.READ)
    query = app.current_event.query_string_parameters
    wait = http.parse_int(query, "wait", 0, 0, MAX_WAIT_SECONDS)
    since = http.parse_int(query, "since", 0, 0, 2**53) if "since" in query else None
    return http.ok(restore_view(get_restore(access, restore_id, wait, since), now()))


@app.get("/restores")
def get_page() -> Response[str]:
    """A page of restores, newest first; `siteId` is that of the site that is restored."""
    access = http.access(app, Scope.READ)
    query = app.current_event.query_string_parameters
    ids = http.parse_ids(query, "siteId", "userId", "jobId", "cursor")
    status = query.get("status")
    if status is not None and status not in list(RestoreStatus):
        raise BadRequest(f"status: must be one of {', '.join(RestoreStatus)}")
    limit = http.parse_int(query, "limit", 20, 1, 100)
    filters = {name: ids.get(name) for name in ("siteId", "userId", "jobId")} | {"status": status}
    restores, cursor = get_restore.page(access, filters, limit, ids.get("cursor"))
    at = now()
    found = [restore_view(restore, at) for restore in restores]
    return http.ok(RestoresView(restores=found, cursor=cursor))


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return app.resolve(event, context)
