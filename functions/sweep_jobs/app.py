"""Drives on what has stalled, timed out or been lost."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, deadline
from sitebackup.telemetry import logger, metrics

sweep_jobs = Bootstrap.from_env().sweep_jobs()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A scheduled event; answers how many jobs were checked."""
    return {"checked": sweep_jobs(deadline(context))}
