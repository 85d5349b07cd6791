"""Cancel and retry a restore."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, now
from sitebackup.domain.principal import Scope
from sitebackup.domain.restore import Restore
from sitebackup.entrypoints import http
from sitebackup.entrypoints.restore_views import restore_view
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
app = http.resolver(bootstrap.settings.claims)
change_restore = bootstrap.change_restore()


@app.post("/restores/<restore_id>/cancel")
def post_cancel(restore_id: str) -> Response[str]:
    """Stops every task whose provider has not got all bytes."""
    return _accepted(change_restore.cancel(http.access(app, Scope.RESTORE), restore_id))


@app.post("/restores/<restore_id>/retry")
def post_retry(restore_id: str) -> Response[str]:
    """The next attempt of a failed or cancelled restore."""
    return _accepted(change_restore.retry(http.access(app, Scope.RESTORE), restore_id))


def _accepted(restore: Restore) -> Response[str]:
    return http.accepted(restore_view(restore, now()), f"/restores/{restore.id}")


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return app.resolve(event, context)
