"""Compares the records with the bucket."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, deadline
from sitebackup.catalog.check_catalog import Check
from sitebackup.entrypoints.direct import answer
from sitebackup.telemetry import logger, metrics

check_catalog = Bootstrap.from_env().check_catalog()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: object, context: LambdaContext) -> dict[str, Any]:
    """An event of `Check`, sent by an operator; answers what differs, and how to go on."""
    return answer(event, Check, check_catalog, deadline(context))
