"""Saves the schedules in the bucket, once a day."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, deadline
from sitebackup.telemetry import logger, metrics

save_settings = Bootstrap.from_env().save_settings()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A scheduled event; answers how many schedules were saved."""
    return {"saved": save_settings(deadline(context))}
