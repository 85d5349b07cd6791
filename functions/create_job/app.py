"""`POST /backup`: creates a backup."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.backup.create_job import CreateBackup
from sitebackup.bootstrap import Bootstrap, now
from sitebackup.domain.job import Job
from sitebackup.domain.principal import Scope
from sitebackup.entrypoints import http
from sitebackup.entrypoints.views import job_view
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
app = http.resolver(bootstrap.settings.claims)
create_job = bootstrap.create_job()


@app.post("/backup")
def post_backup() -> Response[str]:
    """202 at once; the backup goes on in the background."""
    access = http.access(app, Scope.WRITE)
    request = http.body(app.current_event, CreateBackup)
    return _accepted(create_job(access, request, app.current_event.headers.get("idempotency-key")))


def _accepted(job: Job) -> Response[str]:
    return http.accepted(job_view(job, now()), f"/backup/{job.id}")


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return app.resolve(event, context)
