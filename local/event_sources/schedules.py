"""EventBridge schedules of a local run: functions invoked at a fixed rate.

EventBridge user guide, "Scheduled events": the event; Lambda is invoked asynchronously.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ..aws_account import ACCOUNT_ID, REGION
from ..lambda_runtime.client import lambda_client
from ..template.model import Schedule

log = logging.getLogger("schedules")

_INVOKE_SECONDS = 10.0


class Schedules:
    """Invokes the function of each schedule every so many seconds, first after one such span."""

    def __init__(self, schedules: Sequence[Schedule], lambda_endpoint: str) -> None:
        """LOCAL_SCHEDULE_SECONDS is how long a minute of every rate is. Raises ValueError if it is no number."""
        self._schedules = schedules
        self._minute_seconds = _minute_seconds()
        self._client = lambda_client(lambda_endpoint, read_timeout=_INVOKE_SECONDS)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; call it in the event loop."""
        self._tasks = [asyncio.create_task(self._run(schedule)) for schedule in self._schedules]

    async def stop(self) -> None:
        """Invoke nothing from here on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, schedule: Schedule) -> None:
        loop = asyncio.get_running_loop()
        every = schedule.every_seconds * self._minute_seconds / 60
        due = loop.time()
        while True:
            due = max(due + every, loop.time())  # times missed while this machine slept are not made up for
            await asyncio.sleep(due - loop.time())
            payload = scheduled_event(schedule) if schedule.payload is None else schedule.payload
            await asyncio.to_thread(self._invoke, schedule, payload)

    def _invoke(self, schedule: Schedule, payload: Mapping[str, Any]) -> None:
        try:
            self._client.invoke(
                FunctionName=schedule.function, InvocationType="Event", Payload=json.dumps(payload).encode()
            )
        except (BotoCoreError, ClientError) as error:
            log.error(
                "%s did not reach %s, the next time will be tried: %s",
                schedule.name,
                schedule.function,
                error,
            )


def scheduled_event(schedule: Schedule) -> dict[str, Any]:
    """The event EventBridge sends for a schedule that sets no input of its own."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT_ID,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": REGION,
        "resources": [f"arn:aws:events:{REGION}:{ACCOUNT_ID}:rule/{schedule.name}"],
        "detail": {},
    }


def _minute_seconds() -> float:
    text = os.environ.get("LOCAL_SCHEDULE_SECONDS") or "60"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"LOCAL_SCHEDULE_SECONDS is {text!r}; it must be a number of seconds above 0.")
    return seconds
