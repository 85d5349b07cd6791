"""`POST /restores`: creates a restore, or says what one would do."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, deadline, now
from sitebackup.domain.errors import (
    ActiveJob,
    IdempotencyKeyReused,
    NotFound,
    NotYourUser,
    RestoreUnsupported,
    StateForbids,
)
from sitebackup.domain.principal import Access, Scope
from sitebackup.domain.quota import OverQuota
from sitebackup.entrypoints import http
from sitebackup.entrypoints.parsing import parse_time
from sitebackup.entrypoints.restore_views import RehearsalView, RestoreView, rehearsal_view, restore_view
from sitebackup.restore.create_restore import RestoreRequest
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
api = http.Api(bootstrap.settings.claims)
create_restore, rehearse_restore = bootstrap.create_restore(), bootstrap.rehearse_restore()


@api.route(
    "POST /restores",
    Scope.RESTORE,
    {202: RestoreView, 200: RehearsalView},
    NotYourUser,
    NotFound,
    StateForbids,
    RestoreUnsupported,
    ActiveJob,
    IdempotencyKeyReused,
    OverQuota,
)
def post_restore(access: Access, body: RestoreRequest, idempotency_key: str | None) -> Response[str]:
    """Creates a restore. 202 at once, and it goes on in the background; 200 for a dry run."""
    before = parse_time(body.before, "before") if body.before is not None else None
    if body.dry_run:
        return http.ok(rehearsal_view(rehearse_restore(access, body, before, deadline(api.context))))
    restore = create_restore(access, body, before, idempotency_key)
    return http.accepted(restore_view(restore, now()), f"/restores/{restore.id}")


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return api.resolve(event, context)
