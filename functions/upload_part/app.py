"""Moves parts of exports into S3."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from sitebackup.bootstrap import Bootstrap, deadline
from sitebackup.domain.events import UploadPartCreated
from sitebackup.entrypoints import kafka
from sitebackup.telemetry import logger, metrics

upload_part = Bootstrap.from_env().upload_part()


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """A batch of Kafka records, several of them at once; answers which of them to deliver again."""
    batch = kafka.read(event, UploadPartCreated)
    return batch.response(upload_part(batch.events, deadline(context)))
