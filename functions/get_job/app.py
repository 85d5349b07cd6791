"""`GET /backup/{jobId}` and `GET /backup`: how backups stand."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.backup.get_job import MAX_WAIT_SECONDS
from sitebackup.bootstrap import Bootstrap, now
from sitebackup.domain.errors import BadRequest
from sitebackup.domain.job import Status
from sitebackup.domain.principal import Scope
from sitebackup.entrypoints import http
from sitebackup.entrypoints.views import JobsView, job_view
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
app = http.resolver(
    bootstrap.settings.claims,
    {
        "GET /backup/{jobId}": ("wait", "since"),
        "GET /backup": ("siteId", "userId", "status", "limit", "cursor"),
    },
)
get_job = bootstrap.get_job()


@app.get("/backup/<job_id>")
def get_one(job_id: str) -> Response[str]:
    """The job; with `wait` (seconds) and `since` (a version), as soon as it has changed."""
    access = http.access(app, Scope.READ)
    query = app.current_event.query_string_parameters
    wait = http.parse_int(query, "wait", 0, 0, MAX_WAIT_SECONDS)
    since = http.parse_int(query, "since", 0, 0, 2**53) if "since" in query else None
    return http.ok(job_view(get_job(access, job_id, wait, since), now()))


@app.get("/backup")
def get_page() -> Response[str]:
    """A page of jobs, newest first."""
    access = http.access(app, Scope.READ)
    query = app.current_event.query_string_parameters
    ids = http.parse_ids(query, "siteId", "userId", "cursor")
    status = query.get("status")
    if status is not None and status not in list(Status):
        raise BadRequest(f"status: must be one of {', '.join(Status)}")
    limit = http.parse_int(query, "limit", 20, 1, 100)
    filters = {"siteId": ids.get("siteId"), "userId": ids.get("userId"), "status": status}
    jobs, cursor = get_job.page(access, filters, limit, ids.get("cursor"))
    at = now()
    return http.ok(JobsView(jobs=[job_view(job, at) for job in jobs], cursor=cursor))


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return app.resolve(event, context)
