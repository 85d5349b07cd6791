"""What `sam build` made of template.yaml, deployed once, with Kafka and MongoDB beside it."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from local.aws_account import ACCESS_KEY, SECRET_KEY
from local.lambda_runtime import sam
from local.paths import ROOT, TEMPLATE
from local.services.mock_providers import MockProviders
from local.services.s3 import BUCKET, s3_client
from local.services.service import Service
from local.settings import free_ports
from local.template.model import Template
from local.template.reader import load
from tests.builders import LOOPBACK
from tests.integration.lambda_harness import Harness, running
from tests.rehearsal.ministack import PYTHON, AccountS3, Ministack

CLUSTER = "arn:aws:kafka:us-east-1:123456789012:cluster/rehearsal/rehearsal"
PARAMETER = "/rehearsal/providers"
"""Lists the providers of the deployment; the run to compare with has them from its template's parameter."""
DEPLOYED = BUCKET
"""Bucket and database of the deployment."""
LOCAL = "local-run"
"""Bucket and database of the run to compare with."""


@dataclass(frozen=True)
class Deployment:
    """Everything that is up.

    `ids` are the physical ids of the template's resources. `template` is as a local run reads it with the
    parameters of the deployment.
    """

    aws: Ministack
    s3: AccountS3
    ids: dict[str, str]
    template: Template
    local: Harness
    kafka: str
    mongo: str
    providers: str

    @property
    def deployed_template(self) -> Template:
        """The template with its functions named as they were deployed, for what reaches them by Invoke."""
        return replace(
            self.template,
            functions={self.ids[name]: function for name, function in self.template.functions.items()},
            mappings=tuple(replace(one, function=self.ids[one.function]) for one in self.template.mappings),
            routes=tuple(replace(one, function=self.ids[one.function]) for one in self.template.routes),
        )


@pytest.fixture(scope="session")
def deployment(kafka: Service, mongo: Service) -> Iterator[Deployment]:
    if "PYTEST_XDIST_WORKER" in os.environ:
        pytest.skip("one deployment serves all tests: make rehearsal runs them in one process")
    if sys.version_info[:2] != (3, 13) or sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("the layer's wheels are Lambda's: Linux, x86-64, Python 3.13")
    if not PYTHON.exists():
        pytest.skip("ministack is not installed: make rehearsal")
    with tempfile.TemporaryDirectory(prefix="site-backup-rehearsal-") as temporary:
        folder = Path(temporary)
        s3 = AccountS3(folder)
        providers = MockProviders(folder, int(free_ports()["PROVIDERS_PORT"]), "site=100000,db=1000")
        aws = Ministack(folder)
        servers: list[Service] = [s3, providers, aws]
        try:
            for server in servers:
                server.start()
            sam.build(TEMPLATE, folder)
            for server in servers:
                server.wait_ready()
            storage = s3_client(s3.address)
            storage.create_bucket(Bucket=LOCAL)
            storage.put_bucket_versioning(Bucket=LOCAL, VersioningConfiguration={"Status": "Enabled"})
            secret = aws.client("secretsmanager").create_secret(Name="mongo", SecretString=mongo.address)
            sites = "export?userId={userId}&siteId={siteId}&chunkSize={chunkSize}"
            exports = [
                {"name": name, "exportUrl": f"{providers.address}/{name}/{sites}", "allowNetworks": LOOPBACK}
                for name in ("site", "db")
            ]
            listed = json.dumps(exports)
            aws.client("ssm").put_parameter(Name=PARAMETER, Value=listed, Type="String")
            common = {
                "KafkaBootstrapServers": kafka.address,
                "KafkaAuth": "none",
                "MskClusterArn": CLUSTER,
                "S3EndpointUrl": s3.address,
                "PartSizeMib": "5",
            }
            local = {
                **common,
                "Providers": listed,
                "MongoUri": mongo.address,
                "MongoDatabase": LOCAL,
                "BackupBucketName": LOCAL,
            }
            deployed = {
                **common,
                "ProvidersSource": f"ssm:{PARAMETER}",
                "MongoSecretArn": secret["ARN"],
                "MongoDatabase": DEPLOYED,
                "BackupBucketName": DEPLOYED,
            }
            ids = aws.deploy(folder / "build", deployed)
            credentials = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
            with running(ROOT, parameters=local, credentials=credentials) as harness:
                yield Deployment(
                    aws,
                    s3,
                    ids,
                    load(TEMPLATE, deployed),
                    harness,
                    kafka.address,
                    mongo.address,
                    providers.address,
                )
        finally:
            for server in servers:
                server.terminate()
            for server in servers:
                server.stop()
