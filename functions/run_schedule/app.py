"""Starts the backups that are due."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, deadline
from sitebackup.telemetry import logger, metrics

run_schedule = Bootstrap.from_env().run_schedule()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A scheduled event; answers how many schedules were moved on."""
    return {"moved": run_schedule(deadline(context))}
