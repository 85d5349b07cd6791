"""`POST /backup/{jobId}/download` and `GET /backup/{jobId}/providers/{provider}/download`: links to backups."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap
from sitebackup.domain.download import Download
from sitebackup.domain.errors import NotFound, StateForbids
from sitebackup.domain.principal import Access, Scope
from sitebackup.entrypoints import http, queries
from sitebackup.entrypoints.download_views import DownloadView, download_view
from sitebackup.restore.create_download import DownloadRequest
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
api = http.Api(bootstrap.settings.claims)
MAY_REFUSE = (NotFound, StateForbids)
create_download = bootstrap.create_download()


@api.route("POST /backup/{jobId}/download", Scope.RESTORE, {200: DownloadView}, *MAY_REFUSE)
def post_download(
    access: Access, query: queries.Damaged, body: DownloadRequest, job_id: str
) -> Response[str]:
    """The link, and what to compare the bytes with."""
    return http.ok(download_view(_create(access, job_id, body.provider, query)))


@api.route("GET /backup/{jobId}/providers/{provider}/download", Scope.RESTORE, {302: None}, *MAY_REFUSE)
def get_download(access: Access, query: queries.Damaged, job_id: str, provider: str) -> Response[str]:
    """Leads to the bytes."""
    return http.found(_create(access, job_id, provider, query).link.url)


def _create(access: Access, job_id: str, provider: str, query: queries.Damaged) -> Download:
    return create_download(access, job_id, provider, allow_damaged=query.damaged is not None)


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return api.resolve(event, context)
