"""Opens stored backups, to prove that they could be restored."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, deadline
from sitebackup.domain.events import DrillCreated
from sitebackup.entrypoints import kafka
from sitebackup.telemetry import logger, metrics

drill_backup = Bootstrap.from_env().drill_backup()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A batch of Kafka records; answers which of them to deliver again."""
    return kafka.read(event, DrillCreated).run(
        lambda record: drill_backup(record, context.aws_request_id, deadline(context))
    )
