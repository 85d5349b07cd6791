"""Expires backups, and removes what they and failed jobs have left."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, deadline
from sitebackup.telemetry import logger, metrics

clean_up = Bootstrap.from_env().clean_up()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A scheduled event; answers how many jobs were looked at."""
    return {"looked": clean_up(deadline(context))}
