"""Runs the local Lambda service in a thread of its own, so that tests are plain blocking code."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from local.asgi import serve
from local.http_api.gateway import HttpApi
from local.lambda_runtime.client import lambda_client
from local.lambda_runtime.invoke_api import invoke_app
from local.lambda_runtime.service import LambdaService
from local.template.model import Template
from local.template.reader import load

FIXTURE = Path(__file__).parent / "fixtures/lambda"
LIMIT_SECONDS = 30.0


class LoopThread:
    """An event loop in a thread; `run` hands it a coroutine and waits for the result."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return future.result(LIMIT_SECONDS)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(LIMIT_SECONDS)
        self.loop.close()


@dataclass
class Harness:
    """A running Lambda service with its Invoke API and HTTP API."""

    loop: LoopThread
    template: Template
    service: LambdaService
    lambda_url: str
    http_url: str
    client: Any

    def environments(self, function: str) -> list[dict[str, Any]]:
        listing = requests.get(f"{self.lambda_url}/environments", timeout=5).json()
        return [one for one in listing if one["folder"] == function]


@contextlib.contextmanager
def running(
    root: Path = FIXTURE,
    *,
    http_seconds: float = 30.0,
    parameters: dict[str, str] | None = None,
    **options: Any,
) -> Iterator[Harness]:
    """Serve the template in `root`, until the block ends; `options` go to LambdaService."""
    template = load(root / "template.yaml", parameters or {})
    loop = LoopThread()
    stack = AsyncExitStack()

    async def start() -> Harness:
        service = LambdaService(template.functions, **options)
        service.start()
        lambda_port = await stack.enter_async_context(serve(invoke_app(service)))
        lambda_url = f"http://127.0.0.1:{lambda_port}"
        api = HttpApi(template, lambda_url, integration_seconds=http_seconds)
        stack.callback(api.close)
        http_port = await stack.enter_async_context(serve(api.app))
        stack.push_async_callback(service.stop)
        client = lambda_client(lambda_url, read_timeout=LIMIT_SECONDS, connections=20)
        return Harness(loop, template, service, lambda_url, f"http://127.0.0.1:{http_port}", client)

    try:
        yield loop.run(start())
    finally:
        loop.run(stack.aclose())
        loop.close()
