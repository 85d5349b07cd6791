"""The functions in containers: `sam build`, `sam local invoke`, and sam's servers for a local run.

Options and behaviour are those of the AWS SAM CLI command reference; what differs from functions that run without
Docker is in docs/local-parity.md.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..aws_account import ACCESS_KEY, REGION, SECRET_KEY
from ..paths import ROOT
from ..services import processes
from ..services.containers import STOP_SECONDS, ContainerService
from ..services.service import ServiceError

AWS_IMAGE = "public.ecr.aws/lambda/python:3.13-x86_64"
"""What sam runs functions of template.yaml's Runtime and Architectures in, if it is given no image."""

SAM = ROOT / ".venv-tools/bin/sam"
_PULL_SECONDS = 120.0
_BUILD_SECONDS = 300.0  # the first build fetches the layer's wheels


@dataclass(frozen=True)
class Invoked:
    """What `sam local invoke` wrote: the answer on its standard output, all else on its standard error."""

    code: int
    payload: bytes
    log: str


class Sam:
    """A template that has been built, and how its functions are run."""

    def __init__(
        self,
        folder: Path,
        parameters: Mapping[str, str],
        variables: Mapping[str, str],
        image: str | None = None,
    ) -> None:
        """`folder` is what `build` wrote; `variables` replace some that the template gives its functions.

        Without `image` sam takes AWS's own, and pulls it if it is not there.
        """
        # Files, as sam takes parameters on its command line apart by rules that JSON does not survive.
        self._parameters = folder / "parameters.yaml"  # JSON is YAML, and sam reads no .json here
        self._parameters.write_text(json.dumps(dict(parameters)))
        self._variables = folder / "variables.json"
        self._variables.write_text(json.dumps({"Parameters": dict(variables)}))
        self._template = folder / "build/template.yaml"
        self._layers = folder / "layers"
        self._temporary = folder / "tmp"
        self._image = image

    def command(self, name: str, *arguments: str) -> list[str]:
        """The command line of `sam local <name>`."""
        image = ("--invoke-image", self._image, "--skip-pull-image") if self._image else ()
        return [
            *(str(SAM), "local", name, *arguments, "--template-file", str(self._template)),
            *("--region", REGION, "--layer-cache-basedir", str(self._layers), *image),
            *("--parameter-overrides", f"file://{self._parameters}", "--env-vars", str(self._variables)),
        ]

    def environment(self) -> dict[str, str]:
        """For `sam local`: where Docker is, and nothing that leaves this machine.

        sam asks AWS whose account it runs in, and its package index for a newer version of itself. Its locks are
        in its folder for temporary files: one that a killed sam has left there must not hold up others.
        """
        kept = ("PATH", "HOME", "LANG", "DOCKER_HOST", "DOCKER_CONFIG")
        return {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_MAX_ATTEMPTS": "1",
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "SAM_CLI_TELEMETRY": "0",
            "TMPDIR": str(self._temporary),
        }

    def invoke(self, function: str, event: bytes, limit: float) -> Invoked:
        """One invocation in a container of its own. Raises subprocess.TimeoutExpired after `limit` seconds."""
        command = self.command("invoke", function, "--event", "-")
        pipe = subprocess.PIPE
        with subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=self.environment(), start_new_session=True
        ) as process:
            try:
                output, errors = process.communicate(event, timeout=limit)
            finally:
                if process.poll() is None:
                    processes.end(process, STOP_SECONDS)  # not killed at once: it has a container to remove
        return Invoked(process.returncode, output.strip(), errors.decode(errors="replace"))


class SamServer(ContainerService):
    """`sam local start-lambda` or `start-api`, each function in one warm container."""

    def __init__(self, command: str, sam: Sam, folder: Path, port: int | None = None) -> None:
        self.name = {"start-api": "api", "start-lambda": "lambda"}[command]
        self.port_setting = f"{self.name.upper()}_PORT"
        super().__init__(folder, port)
        self.command_name = command
        self._sam = sam

    @property
    def address(self) -> str:
        return f"http://{self.host}:{self.port}"

    def command(self) -> list[str]:
        return self._sam.command(
            *(self.command_name, "--host", self.host, "--port", str(self.port)),
            *("--warm-containers", "LAZY", "--no-watch"),
        )

    def start(self) -> None:
        self._remove_containers()  # those of a run that was killed
        self.log.unlink(missing_ok=True)
        super().start()

    def stop(self) -> None:
        """As of any service; sam may wait for an invocation to end, and then has removed no container."""
        super().stop()
        self._remove_containers()

    def _remove_containers(self) -> None:
        """Those that sam's log names, as far as they are still there."""
        if not self.log.exists():
            return
        found = re.findall(r"SAM_CONTAINER_ID: ([0-9a-f]{64})", self.log.read_text(errors="replace"))
        if found:
            remove = ["docker", "rm", "--force", *found]
            subprocess.run(remove, capture_output=True, timeout=60, check=False)

    def environment(self) -> dict[str, str]:
        return self._sam.environment()

    def prepare(self) -> None:
        """It is ready once it answers, whatever that is; a first request may be reset although it listens."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
        finally:
            connection.close()


def require_image(image: str | None) -> None:
    """See that `image`, or else AWS's own, is there before sam looks for it at the first invocation.

    AWS's is pulled. Raises ServiceError, which says what makes one.
    """
    name = image or AWS_IMAGE
    if _docker("image", "inspect", name) is None:
        return
    if image is not None:
        raise ServiceError(
            f"LAMBDA_IMAGE: this Docker engine has no image {image!r}. "
            "`.venv/bin/python scripts/lambda_image.py` makes site-backup/lambda-python:3.13."
        )
    if (reason := _docker("pull", "--quiet", name)) is not None:
        raise ServiceError(
            f"LAMBDA=sam needs AWS's image {name}, and it can't be pulled: {reason}. Pull it by hand; where no "
            "registry is reached, `.venv/bin/python scripts/lambda_image.py` makes a similar one, and "
            "LAMBDA_IMAGE=site-backup/lambda-python:3.13 takes that."
        )


def _docker(*arguments: str) -> str | None:
    """Why the command failed, or None."""
    try:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, timeout=_PULL_SECONDS, check=False
        )
    except OSError as error:
        return str(error)
    except subprocess.TimeoutExpired:
        return f"it took longer than {_PULL_SECONDS:.0f} s"
    return None if done.returncode == 0 else done.stderr.strip() or f"code {done.returncode}"


def build(template: Path, folder: Path) -> None:
    """`sam build` into `folder/build`, with this Python as the one it asks for. Raises ServiceError.

    Nothing of an earlier run may be up: its temporary files are removed.
    """
    shutil.rmtree(folder / "tmp", ignore_errors=True)
    (folder / "tmp").mkdir(parents=True)
    if not SAM.exists():
        raise ServiceError("The AWS SAM CLI is not installed: run `make setup`.")
    command = [str(SAM), "build", "--template-file", str(template), "--build-dir", str(folder / "build")]
    command += ["--cache-dir", str(folder / "cache")]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    variables = {**os.environ, "PATH": path, "SAM_CLI_TELEMETRY": "0"}
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False
    )
    if done.returncode != 0:
        raise ServiceError(f"`sam build` failed:\n{done.stdout}{done.stderr}")
