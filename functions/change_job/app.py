"""Retry, cancel, delete, undelete and verify a backup, and put it on legal hold."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, now
from sitebackup.domain.job import Job
from sitebackup.domain.principal import Scope
from sitebackup.entrypoints import http
from sitebackup.entrypoints.views import job_view
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
app = http.resolver(bootstrap.settings.claims, {"DELETE /backup/{jobId}": ("at",)})
change_job, verify_backup = bootstrap.change_job(), bootstrap.verify_backup()


@app.post("/backup/<job_id>/retry")
def post_retry(job_id: str) -> Response[str]:
    """The next attempt of a failed or cancelled job."""
    return _accepted(change_job.retry(http.access(app, Scope.WRITE), job_id))


@app.post("/backup/<job_id>/cancel")
def post_cancel(job_id: str) -> Response[str]:
    """Ends an unfinished job."""
    return _accepted(change_job.cancel(http.access(app, Scope.WRITE), job_id))


@app.delete("/backup/<job_id>")
def delete(job_id: str) -> Response[str]:
    """Marks a final job for deletion, now or `at` a time; its data goes after the grace period."""
    access = http.access(app, Scope.DELETE)
    query = app.current_event.query_string_parameters
    at = http.parse_time(query["at"], "at") if "at" in query else None
    return _accepted(change_job.delete(access, job_id, at))


@app.post("/backup/<job_id>/undelete")
def post_undelete(job_id: str) -> Response[str]:
    """Takes the mark back."""
    return _accepted(change_job.undelete(http.access(app, Scope.WRITE), job_id))


@app.post("/backup/<job_id>/verify")
def post_verify(job_id: str) -> Response[str]:
    """Opens the backup now; what is found stands in each task's `drill`."""
    return _accepted(verify_backup(http.access(app, Scope.WRITE), job_id))


@app.post("/backup/<job_id>/legal-hold")
def post_legal_hold(job_id: str) -> Response[str]:
    """Keeps the data until the hold is released."""
    return _accepted(change_job.set_legal_hold(http.access(app, Scope.WRITE), job_id, True))


@app.delete("/backup/<job_id>/legal-hold")
def delete_legal_hold(job_id: str) -> Response[str]:
    """Releases the hold."""
    return _accepted(change_job.set_legal_hold(http.access(app, Scope.WRITE), job_id, False))


def _accepted(job: Job) -> Response[str]:
    return http.accepted(job_view(job, now()), f"/backup/{job.id}")


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return app.resolve(event, context)
