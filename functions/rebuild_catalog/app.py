"""Makes records of what the bucket holds and the database lacks."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, deadline
from sitebackup.catalog.rebuild_catalog import Rebuild
from sitebackup.entrypoints.direct import answer
from sitebackup.telemetry import logger, metrics

rebuild_catalog = Bootstrap.from_env().rebuild_catalog()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: object, context: LambdaContext) -> dict[str, Any]:
    """An event of `Rebuild`, sent by an operator; answers what was made, and how to go on."""
    return answer(event, Rebuild, rebuild_catalog, deadline(context))
