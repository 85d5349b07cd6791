"""Connections that the network forgot while an environment was frozen: a backup needs no sweep for them."""

from uuid import uuid4

import pytest

from local.services.s3 import s3_client
from local.services.service import Service
from sitebackup.domain.job import Status
from tests.fakes.exports import MemoryExport
from tests.integration.real_stack import MIB, Stack, a_zip
from tests.tcp_proxy import TcpProxy


@pytest.mark.parametrize("size", [1 * MIB, 11 * MIB], ids=["one object", "parts"])
def test_a_backup_whose_every_invocation_finds_its_connections_dead_is_done_at_the_first_try(
    mongo: Service, s3: Service, size: int
) -> None:
    to_mongo, to_s3 = TcpProxy((mongo.host, mongo.port)), TcpProxy((s3.host, s3.port))
    mongo_uri = f"mongodb://{to_mongo.address}/?directConnection=true"
    stack = Stack(mongo_uri, f"http://{to_s3.address}", f"dead-{uuid4().hex}")
    stack.served.by_provider["site"] = MemoryExport(a_zip("site", size))
    try:
        stack.real.storage.at_key("none")
        job = stack.a_backup()
        while stack.bag.bag:
            to_mongo.forget("reset")
            to_s3.forget("reset")
            stack.deliver(1)
        stored = stack.job(job.id)
        assert (stored.status, stored.tasks["site"].last_error, stored.tasks["site"].tries) == (
            Status.DONE,
            None,
            0,
        )
        stack.s3 = s3_client(s3.address)
        stack.check_backup(job.id)
        assert to_s3.connections > 2
    finally:
        stack.close()
        to_mongo.close()
        to_s3.close()
