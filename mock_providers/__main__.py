"""`python -m mock_providers`: serves the export and import APIs on this machine."""

import argparse
import asyncio
import os
import re

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from mock_providers.app import create_app
from mock_providers.archive import LARGEST
from mock_providers.held import DEFAULT_LIMIT

_UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = r"(\d{1,15})(|KiB|MiB|GiB)"


class Protocol(H11Protocol):
    """uvicorn's HTTP, with the connection's transport in the request's state: faults close and reset it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


def default_sizes(text: str) -> dict[str, int]:
    """The sizes in bytes of `site=64MiB,db=1000`. Raises ArgumentTypeError, which names the wrong item."""
    sizes = {}
    for item in filter(None, text.split(",")):
        match = re.fullmatch(rf"([a-z][a-z0-9_-]{{0,62}})={_SIZE}", item.strip())
        size = int(match[2]) * _UNITS[match[3]] if match else -1
        if match is None or size > LARGEST:
            raise argparse.ArgumentTypeError(
                f"{item!r} is not provider=bytes, such as site=64MiB, of at most {LARGEST} bytes"
            )
        sizes[match[1]] = size
    return sizes


def byte_count(text: str) -> int:
    """The bytes of `16GiB`. Raises ArgumentTypeError."""
    match = re.fullmatch(_SIZE, text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of bytes, such as 16GiB")
    return int(match[1]) * _UNITS[match[2]]


def main() -> None:
    """Serves until it is told to end."""
    parser = argparse.ArgumentParser(prog="python -m mock_providers", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=os.environ.get("PROVIDERS_PORT", "3002"))
    parser.add_argument(
        "--default-size",
        type=default_sizes,
        default=os.environ.get("MOCK_PROVIDERS_DEFAULT_SIZE", ""),
        metavar="site=64MiB,db=16MiB",
        help="bytes of the exports, by provider; 1 MiB where not set",
    )
    parser.add_argument(
        "--import-limit",
        type=byte_count,
        default=os.environ.get("MOCK_PROVIDERS_IMPORT_LIMIT", str(DEFAULT_LIMIT)),
        metavar="16GiB",
        help="bytes that all imports may hold, in temporary files",
    )
    arguments = parser.parse_args()
    uvicorn.run(
        create_app(arguments.default_size, arguments.import_limit),
        host=arguments.host,
        port=arguments.port,
        http=Protocol,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_level="warning",
        timeout_keep_alive=65,
        timeout_graceful_shutdown=1,
    )


if __name__ == "__main__":
    main()
