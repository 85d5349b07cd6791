"""Finishes jobs whose tasks are all done."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, deadline
from sitebackup.domain.events import TaskUpdated
from sitebackup.entrypoints import kafka
from sitebackup.telemetry import logger, metrics

finish_job = Bootstrap.from_env().finish_job()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A batch of Kafka records; answers which of them to deliver again."""
    return kafka.read(event, TaskUpdated).run(lambda record: finish_job(record, deadline(context)))
