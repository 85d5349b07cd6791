"""Retry, cancel, delete, undelete and verify a backup, and put it on legal hold."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, now
from sitebackup.domain.errors import ActiveJob, Locked, NotFound, ServiceOnly, StateForbids, TooLate
from sitebackup.domain.job import Job
from sitebackup.domain.principal import Access, Scope
from sitebackup.domain.quota import OverQuota
from sitebackup.entrypoints import http, queries
from sitebackup.entrypoints.parsing import parse_time
from sitebackup.entrypoints.views import JobView, job_view
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
api = http.Api(bootstrap.settings.claims)
MAY_REFUSE = (NotFound, StateForbids)
ACCEPTED = {202: JobView}
change_job, verify_backup = bootstrap.change_job(), bootstrap.verify_backup()


@api.route("POST /backup/{jobId}/retry", Scope.WRITE, ACCEPTED, *MAY_REFUSE, ActiveJob, OverQuota)
def post_retry(access: Access, job_id: str) -> Response[str]:
    """The next attempt of a failed or cancelled job."""
    return _accepted(change_job.retry(access, job_id))


@api.route("POST /backup/{jobId}/cancel", Scope.WRITE, ACCEPTED, *MAY_REFUSE, TooLate)
def post_cancel(access: Access, job_id: str) -> Response[str]:
    """Ends an unfinished job."""
    return _accepted(change_job.cancel(access, job_id))


@api.route("DELETE /backup/{jobId}", Scope.DELETE, ACCEPTED, *MAY_REFUSE, Locked)
def delete(access: Access, query: queries.Deletion, job_id: str) -> Response[str]:
    """Marks a final job for deletion, now or `at` a time; its data goes after the grace period."""
    at = parse_time(query.at, "at") if query.at is not None else None
    return _accepted(change_job.delete(access, job_id, at))


@api.route("POST /backup/{jobId}/undelete", Scope.WRITE, ACCEPTED, *MAY_REFUSE)
def post_undelete(access: Access, job_id: str) -> Response[str]:
    """Takes the mark back."""
    return _accepted(change_job.undelete(access, job_id))


@api.route("POST /backup/{jobId}/verify", Scope.WRITE, ACCEPTED, *MAY_REFUSE)
def post_verify(access: Access, job_id: str) -> Response[str]:
    """Opens the backup now; what is found stands in each task's `drill`."""
    return _accepted(verify_backup(access, job_id))


@api.route("POST /backup/{jobId}/legal-hold", Scope.WRITE, ACCEPTED, *MAY_REFUSE, ServiceOnly)
def post_legal_hold(access: Access, job_id: str) -> Response[str]:
    """Keeps the data until the hold is released."""
    return _accepted(change_job.set_legal_hold(access, job_id, True))


@api.route("DELETE /backup/{jobId}/legal-hold", Scope.WRITE, ACCEPTED, *MAY_REFUSE, ServiceOnly)
def delete_legal_hold(access: Access, job_id: str) -> Response[str]:
    """Releases the hold."""
    return _accepted(change_job.set_legal_hold(access, job_id, False))


def _accepted(job: Job) -> Response[str]:
    return http.accepted(job_view(job, now()), f"/backup/{job.id}")


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return api.resolve(event, context)
