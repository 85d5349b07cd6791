"""What several tests of the Kafka mappings stand on."""

from collections.abc import Iterator

import pytest

from local.services.service import Service
from tests.integration.mapping_harness import Lambda, Topic, a_topic, serve


@pytest.fixture
def lambda_() -> Iterator[Lambda]:
    with serve() as endpoint:
        yield endpoint


@pytest.fixture
def topic(kafka: Service) -> Iterator[Topic]:
    with a_topic(kafka, 4) as one:
        yield one
