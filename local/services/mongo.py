"""A server of MongoDB's protocol as a service of the local run."""

from __future__ import annotations

from typing import Any

import pymongo

from .service import Service, installed_program


class Mongo(Service):
    """SecantusDB: MongoDB's wire protocol over WiredTiger."""

    name = "mongo"
    port_setting = "MONGO_PORT"

    @property
    def address(self) -> str:
        return f"mongodb://{self.host}:{self.port}/?directConnection=true"

    def command(self) -> list[str]:
        return [
            *(installed_program("secantusd-py"), "--host", self.host, "--port", str(self.port)),
            *("--storage-path", str(self.data), "--cache-size", "256M", "--log-level", "WARNING"),
            # Else kill -9 loses what was acknowledged in the last 100 ms; costs about 0.1 ms a write.
            "--sync-on-commit",
        ]

    def prepare(self) -> None:
        with pymongo.MongoClient[dict[str, Any]](self.address, serverSelectionTimeoutMS=1000) as client:
            client.admin.command("ping")
