"""Chooses whose backups are opened next."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, deadline
from sitebackup.telemetry import logger, metrics

run_drills = Bootstrap.from_env().run_drills()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A scheduled event; answers how many sites were chosen."""
    return {"sites": run_drills(deadline(context))}
