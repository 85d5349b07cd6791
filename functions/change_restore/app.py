"""Cancel and retry a restore."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, now
from sitebackup.domain.errors import ActiveJob, NotFound, StateForbids, TooLate
from sitebackup.domain.principal import Access, Scope
from sitebackup.domain.restore import Restore
from sitebackup.entrypoints import http
from sitebackup.entrypoints.restore_views import RestoreView, restore_view
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
api = http.Api(bootstrap.settings.claims)
change_restore = bootstrap.change_restore()


@api.route(
    "POST /restores/{restoreId}/cancel", Scope.RESTORE, {202: RestoreView}, NotFound, StateForbids, TooLate
)
def post_cancel(access: Access, restore_id: str) -> Response[str]:
    """Stops every task whose provider has not got all bytes."""
    return _accepted(change_restore.cancel(access, restore_id))


@api.route(
    "POST /restores/{restoreId}/retry", Scope.RESTORE, {202: RestoreView}, NotFound, StateForbids, ActiveJob
)
def post_retry(access: Access, restore_id: str) -> Response[str]:
    """The next attempt of a failed or cancelled restore."""
    return _accepted(change_restore.retry(access, restore_id))


def _accepted(restore: Restore) -> Response[str]:
    return http.accepted(restore_view(restore, now()), f"/restores/{restore.id}")


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return api.resolve(event, context)
