"""Drives on what has stalled, timed out or been lost."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, deadline
from sitebackup.telemetry import logger, metrics

sweep_jobs = Bootstrap().sweep_jobs()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A scheduled event; answers how many jobs were driven on."""
    return {"driven": sweep_jobs(deadline(context))}
