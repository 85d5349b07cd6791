"""`GET /backup/{jobId}` and `GET /backup`: how backups stand."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, now
from sitebackup.domain.errors import NotFound, NotYourUser
from sitebackup.domain.principal import Access, Scope
from sitebackup.entrypoints import http, queries
from sitebackup.entrypoints.views import JobsView, JobView, job_view
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
api = http.Api(bootstrap.settings.claims)
get_job = bootstrap.get_job()


@api.route("GET /backup/{jobId}", Scope.READ, {200: JobView}, NotFound)
def get_one(access: Access, query: queries.Wait, job_id: str) -> Response[str]:
    """The job; with `wait` (seconds) and `since` (a version), as soon as it has changed."""
    return http.ok(job_view(get_job(access, job_id, query.wait, query.since), now()))


@api.route("GET /backup", Scope.READ, {200: JobsView}, NotYourUser)
def get_page(access: Access, query: queries.Jobs) -> Response[str]:
    """A page of jobs, newest first."""
    filters = {"siteId": query.site_id, "userId": query.user_id, "status": query.status}
    jobs, cursor = get_job.page(access, filters, query.limit, query.cursor)
    at = now()
    return http.ok(JobsView(jobs=[job_view(job, at) for job in jobs], cursor=cursor))


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return api.resolve(event, context)
