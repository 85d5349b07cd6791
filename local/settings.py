"""What the environment says about a local run: ports, folder, services of one's own, template parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .lambda_runtime.service import DEFAULT_CONCURRENCY
from .paths import ROOT
from .services.containers import bridge_address
from .services.processes import free_port
from .services.s3 import BUCKET
from .services.service import HOST, ServiceError

_PORTS = {
    "API": 3000,
    "LAMBDA": 3001,
    "PROVIDERS": 3002,
    "USER_API": 3003,
    "ISSUER": 3004,
    "S3": 9000,
    "KAFKA": 9092,
    "MONGO": 27017,
}
AUDIENCE = "site-backup"
SITES_CLAIM = "sites"
_MAX_CONCURRENCY = 1000  # of an AWS account that asked for no more
_ADDRESSES = ("KAFKA_BOOTSTRAP_SERVERS", "MONGO_URI", "S3_ENDPOINT_URL")


class SettingsError(Exception):
    """A variable of the environment is wrong; the message names it."""


@dataclass(frozen=True)
class Settings:
    """The settings of a local run. `external` holds the addresses of services that run elsewhere.

    `secrets_endpoint` is that of a Secrets Manager, which has the tokens of providers.

    `services` is embedded, compose or external; with `by_sam` functions run in containers, of `image` if it is
    set, and the services listen on `host`, which these reach. Otherwise each function has up to `concurrency`
    execution environments. With `by_jwt` there is an issuer of tokens, and a second HTTP API for users who send them.
    """

    services: str
    by_sam: bool
    by_jwt: bool
    image: str | None
    concurrency: int
    host: str
    folder: Path
    ports: Mapping[str, int]
    external: Mapping[str, str] | None
    secrets_endpoint: str | None
    providers: str
    provider_sizes: str
    parameters: Mapping[str, str]

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Raises SettingsError."""
        services = env.get("SERVICES") or "embedded"
        if services not in ("embedded", "compose", "external"):
            raise SettingsError(f"SERVICES is {services!r}; it must be embedded, compose or external.")
        functions = env.get("LAMBDA") or "local"
        if functions not in ("local", "sam"):
            raise SettingsError(f"LAMBDA is {functions!r}; it must be local or sam.")
        auth = env.get("AUTH") or "iam"
        if auth not in ("iam", "jwt"):
            raise SettingsError(f"AUTH is {auth!r}; it must be iam or jwt.")
        if functions == "sam" and env.get("CONCURRENCY"):
            raise SettingsError("CONCURRENCY can't be set with LAMBDA=sam: it runs one container a function.")
        try:
            host = bridge_address() if functions == "sam" else HOST
        except ServiceError as error:
            raise SettingsError(f"LAMBDA=sam needs a Docker engine. {error}") from error
        external = None
        if services == "external":
            missing = [name for name in _ADDRESSES if not env.get(name)]
            if missing:
                raise SettingsError(f"SERVICES=external needs {' and '.join(missing)}.")
            external = {name: env[name] for name in _ADDRESSES}
        parameters = {
            name.removeprefix("PARAM_"): value
            for name, value in env.items()
            if name.startswith("PARAM_") and name != "PARAM_"
        }
        ports = {name: _number(env, f"{name}_PORT", default, 65_535) for name, default in _PORTS.items()}
        return cls(
            services=services,
            by_sam=functions == "sam",
            by_jwt=auth == "jwt",
            image=env.get("LAMBDA_IMAGE") or None,
            concurrency=_number(env, "CONCURRENCY", DEFAULT_CONCURRENCY, _MAX_CONCURRENCY),
            host=host,
            folder=Path(env.get("LOCAL_DIR") or ROOT / ".local").resolve(),
            ports=ports,
            external=external,
            secrets_endpoint=env.get("SECRETS_ENDPOINT_URL") or None,
            providers=env.get("PROVIDERS")
            or ("" if parameters.get("ProvidersSource") else _mock_providers(host, ports["PROVIDERS"])),
            provider_sizes=env.get("MOCK_PROVIDERS_DEFAULT_SIZE", ""),
            parameters=parameters,
        )

    @property
    def choices(self) -> dict[str, str]:
        """How the run is made, by the variable that decides it."""
        choices = {"LAMBDA": "sam" if self.by_sam else "local", "SERVICES": self.services}
        if self.by_jwt:
            choices["AUTH"] = "jwt"
        return choices if self.by_sam else choices | {"CONCURRENCY": str(self.concurrency)}

    @property
    def lambda_address(self) -> str:
        """Where functions are invoked: everything that reaches them does it there."""
        return f"http://{HOST}:{self.ports['LAMBDA']}"

    @property
    def api_address(self) -> str:
        return f"http://{HOST}:{self.ports['API']}"

    @property
    def issuer_address(self) -> str:
        """Of tokens, where there is one."""
        return f"http://{HOST}:{self.ports['ISSUER']}"

    @property
    def providers_address(self) -> str:
        return f"http://{self.host}:{self.ports['PROVIDERS']}"

    @property
    def state_file(self) -> Path:
        """What runs: written once all is up, removed at the end."""
        return self.folder / "state.json"

    @property
    def _jwt_parameters(self) -> dict[str, str]:
        return {"JwtIssuer": self.issuer_address, "JwtAudience": AUDIENCE, "JwtSitesClaim": SITES_CLAIM}

    def template_parameters(self, kafka: str, mongo: str, s3: str) -> dict[str, str]:
        """The parameters of template.yaml for these addresses, and those set by PARAM_<Name>."""
        return {
            "Providers": self.providers,
            "BackupBucketName": BUCKET,
            "KafkaBootstrapServers": kafka,
            "KafkaAuth": "none",
            "MskClusterArn": "arn:aws:kafka:us-east-1:123456789012:cluster/local/local",
            "MongoUri": mongo,
            "S3EndpointUrl": s3,
            **(self._jwt_parameters if self.by_jwt else {}),
            **self.parameters,
        }


def free_ports() -> dict[str, str]:
    """Environment variables that choose a free port for each server, for runs beside others."""
    return {f"{name}_PORT": str(free_port()) for name in _PORTS}


def _number(env: Mapping[str, str], name: str, default: int, high: int) -> int:
    text = env.get(name) or str(default)
    if not re.fullmatch("[0-9]{1,6}", text) or not 0 < int(text) <= high:
        raise SettingsError(f"{name} is {text!r}; it must be a number from 1 to {high}.")
    return int(text)


def _mock_providers(host: str, port: int) -> str:
    def provider(name: str) -> dict[str, str | bool | list[str]]:
        url, ids = f"http://{host}:{port}/{name}", "userId={userId}&siteId={siteId}"
        return {
            "name": name,
            "exportUrl": f"{url}/export?{ids}&chunkSize={{chunkSize}}",
            "importUrl": f"{url}/import?{ids}",
            "importStatus": True,
            "format": "zip",
            "allowNetworks": [host],
        }

    return json.dumps([provider(name) for name in ("site", "db")])
