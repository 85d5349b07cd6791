"""`POST /backup/{jobId}/download` and `GET /backup/{jobId}/providers/{provider}/download`: links to backups."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap
from sitebackup.domain.errors import BadRequest
from sitebackup.domain.principal import Scope
from sitebackup.entrypoints import http
from sitebackup.entrypoints.download_views import download_view
from sitebackup.restore.create_download import DownloadRequest
from sitebackup.telemetry import logger, metrics

DAMAGED = ("damaged",)
bootstrap = Bootstrap.from_env()
app = http.resolver(
    bootstrap.settings.claims,
    {
        "POST /backup/{jobId}/download": DAMAGED,
        "GET /backup/{jobId}/providers/{provider}/download": DAMAGED,
    },
)
create_download = bootstrap.create_download()


@app.post("/backup/<job_id>/download")
def post_download(job_id: str) -> Response[str]:
    """The link, and what to compare the bytes with."""
    access = http.access(app, Scope.RESTORE)
    request = http.body(app.current_event, DownloadRequest)
    download = create_download(access, job_id, request.provider, allow_damaged=_allow_damaged())
    return http.ok(download_view(download))


@app.get("/backup/<job_id>/providers/<provider>/download")
def get_download(job_id: str, provider: str) -> Response[str]:
    """Leads to the bytes."""
    access = http.access(app, Scope.RESTORE)
    return http.found(create_download(access, job_id, provider, allow_damaged=_allow_damaged()).link.url)


def _allow_damaged() -> bool:
    """Whether `damaged=allow` asks for what a drill found damaged. Raises BadRequest for anything else."""
    asked = app.current_event.query_string_parameters.get("damaged")
    if asked not in (None, "allow"):
        raise BadRequest("damaged: must be allow")
    return asked is not None


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return app.resolve(event, context)
