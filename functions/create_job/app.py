"""`POST /backup`: creates a backup."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.backup.create_job import CreateBackup
from sitebackup.bootstrap import Bootstrap, now
from sitebackup.domain.errors import ActiveJob, IdempotencyKeyReused, NotFound, NotYourUser
from sitebackup.domain.job import Job
from sitebackup.domain.principal import Access, Scope
from sitebackup.domain.quota import OverQuota
from sitebackup.entrypoints import http
from sitebackup.entrypoints.views import JobView, job_view
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
api = http.Api(bootstrap.settings.claims)
create_job = bootstrap.create_job()


@api.route(
    "POST /backup",
    Scope.WRITE,
    {202: JobView},
    NotYourUser,
    NotFound,
    ActiveJob,
    IdempotencyKeyReused,
    OverQuota,
)
def post_backup(access: Access, body: CreateBackup, idempotency_key: str | None) -> Response[str]:
    """Creates a backup. 202 at once; it goes on in the background."""
    return _accepted(create_job(access, body, idempotency_key))


def _accepted(job: Job) -> Response[str]:
    return http.accepted(job_view(job, now()), f"/backup/{job.id}")


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return api.resolve(event, context)
