"""`POST /restores`: creates a restore, or says what one would do."""

from typing import Any

from aws_lambda_powertools.event_handler import Response
from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, deadline, now
from sitebackup.domain.principal import Scope
from sitebackup.entrypoints import http
from sitebackup.entrypoints.restore_views import rehearsal_view, restore_view
from sitebackup.restore.create_restore import RestoreRequest
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
app = http.resolver(bootstrap.settings.claims)
create_restore, rehearse_restore = bootstrap.create_restore(), bootstrap.rehearse_restore()


@app.post("/restores")
def post_restore() -> Response[str]:
    """202 at once, and the restore goes on in the background; 200 for a dry run."""
    access = http.access(app, Scope.RESTORE)
    request = http.body(app.current_event, RestoreRequest)
    before = http.parse_time(request.before, "before") if request.before is not None else None
    if request.dry_run:
        return http.ok(
            rehearsal_view(rehearse_restore(access, request, before, deadline(app.lambda_context)))
        )
    key = app.current_event.headers.get("idempotency-key")
    restore = create_restore(access, request, before, key)
    return http.accepted(restore_view(restore, now()), f"/restores/{restore.id}")


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """An HTTP API event, payload format 2.0."""
    return app.resolve(event, context)
