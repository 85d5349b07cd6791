"""Drives on what has stalled, timed out or been lost."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, deadline
from sitebackup.telemetry import logger, metrics

bootstrap = Bootstrap.from_env()
sweep_jobs, sweep_restores = bootstrap.sweep_jobs(), bootstrap.sweep_restores()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A scheduled event; answers how many backups and restores were checked. Restores are few, and come first."""
    restores = sweep_restores(deadline(context))
    return {"checked": sweep_jobs(deadline(context)), "restores": restores}
