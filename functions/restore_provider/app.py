"""Gives backups' objects back to the providers' import APIs."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, deadline
from sitebackup.domain.events import RestoreTaskCreated
from sitebackup.entrypoints import kafka
from sitebackup.telemetry import logger, metrics

restore_provider = Bootstrap.from_env().restore_provider()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A batch of Kafka records; answers which of them to deliver again."""
    return kafka.read(event, RestoreTaskCreated).run(
        lambda record: restore_provider(record, context.aws_request_id, deadline(context))
    )
