"""What stands in for AWS: ministack, to which `sam deploy` deploys, and an S3 server that its functions may use."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from local.aws_account import ACCESS_KEY, ACCOUNT_ID, REGION, SECRET_KEY
from local.lambda_runtime.sam import SAM
from local.paths import ROOT
from local.services.s3 import S3
from local.services.service import Service
from local.template.intrinsics import Intrinsics, parse

PYTHON = ROOT / ".venv-rehearsal/bin/python"
STACK = "rehearsal"
_DEPLOY_SECONDS = 120.0


class AccountS3(S3):
    """SeaweedFS that takes the credentials ministack gives to functions: the account's id, and its own secret."""

    def command(self) -> list[str]:
        command = super().command()
        config = self.folder / "s3.json"
        identities = json.loads(config.read_text())
        identities["identities"][0]["credentials"].append({"accessKey": ACCOUNT_ID, "secretKey": SECRET_KEY})
        config.write_text(json.dumps(identities))
        return command


class Ministack(Service):
    """Functions are processes of its own Python, on code and layer as they were uploaded, unpacked in its folder."""

    name = "ministack"
    port_setting = "GATEWAY_PORT"

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    def environment(self) -> dict[str, str]:
        """Of the server; its functions inherit it."""
        return {
            **self.client_environment(),
            "BIND_HOST": self.host,
            "GATEWAY_PORT": str(self.port),
            "MINISTACK_ACCOUNT_ID": ACCOUNT_ID,
            "MINISTACK_REGION": REGION,
        }

    def client_environment(self) -> dict[str, str]:
        """For what shall take it for AWS, as the account's root."""
        return {
            **super().environment(),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.address,
            "HOME": str(self.data),
            "TMPDIR": str(self.data),  # sam leaves a folder for each artefact behind
        }

    def command(self) -> list[str]:
        return [str(PYTHON), "-m", "ministack"]

    def prepare(self) -> None:
        self.client("sts").get_caller_identity()

    def client(self, service: str) -> Any:
        """A boto3 client for one of its APIs."""
        session = boto3.session.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
        limits = Config(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 1}, proxies={})
        return session.client(service, endpoint_url=self.address, config=limits)  # type: ignore[call-overload]

    def deploy(self, build: Path, parameters: Mapping[str, str]) -> dict[str, str]:
        """`sam deploy` of what `sam build` wrote, without nested stacks; the physical id of each logical one.

        Fails with sam's output unless all of it was created. No schedule runs afterwards: a test would not know when.
        """
        template = parse((build / "template.yaml").read_text())
        template["Resources"] = {
            name: resource
            for name, resource in template["Resources"].items()
            if resource["Type"] != "AWS::CloudFormation::Stack"
        }
        # In a condition ministack knows neither Fn::Join nor Fn::Split, so each is decided before.
        decided = Intrinsics(template, parameters)
        template["Conditions"] = {
            name: {"Fn::Equals": [str(decided.condition(name, name)), "True"]}
            for name in template["Conditions"]
        }
        # JSON is YAML. Files, as sam takes parameters on its command line apart by rules that JSON does not survive.
        (build / "template.yaml").write_text(json.dumps(template))
        (build / "parameters.yaml").write_text(json.dumps(dict(parameters)))
        command = [
            *(str(SAM), "deploy", "--template-file", str(build / "template.yaml"), "--stack-name", STACK),
            *("--region", REGION, "--resolve-s3", "--capabilities", "CAPABILITY_IAM"),
            *("--parameter-overrides", f"file://{build / 'parameters.yaml'}"),
            *("--no-confirm-changeset", "--no-progressbar"),
        ]
        environment = {
            **self.client_environment(),
            "HTTPS_PROXY": "http://127.0.0.1:9",  # sam must not ask the network for a newer one
            "SAM_CLI_TELEMETRY": "0",
        }
        done = subprocess.run(
            command,
            cwd=build,  # there is no samconfig.toml
            env=environment,
            capture_output=True,
            text=True,
            timeout=_DEPLOY_SECONDS,
            check=False,
        )
        assert done.returncode == 0, (
            f"`sam deploy` failed:\n{done.stdout}{done.stderr}\n{self.log.read_text()}"
        )
        events = self.client("events")
        for rule in events.list_rules()["Rules"]:
            events.disable_rule(Name=rule["Name"])
        pages = self.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=STACK)
        summaries = [one for page in pages for one in page["StackResourceSummaries"]]
        return {one["LogicalResourceId"]: one["PhysicalResourceId"] for one in summaries}
