"""`python -m benchmarks.floor EXPORT S3`: one stream with nothing around it but recv, CRC64NVME and send.

What Python's sockets and OpenSSL cost by themselves: one buffer, one connection on each side, no HTTP to speak of. It
knows the origin and the sink of the benchmarks. The last line is JSON, as of `benchmarks.engine`.
"""

import json
import os
import socket
import ssl
import sys
import time
from typing import cast
from urllib.parse import SplitResult, urlsplit

from awscrt import checksums

from benchmarks.measure import own_cpu
from sitebackup.adapters.s3.put import BUFFER_BYTES


def main(export: str, s3: str) -> None:
    started, cpu = time.perf_counter(), own_cpu()
    origin, server = _dial(urlsplit(export)), _dial(urlsplit(s3))
    origin.sendall(b"GET / HTTP/1.1\r\nHost: loopback\r\n\r\n")
    head = b""
    while b"\r\n\r\n" not in head:
        head += origin.recv(1)
    left = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    server.sendall(b"PUT /bucket/key HTTP/1.1\r\nHost: loopback\r\nContent-Length: %d\r\n\r\n" % left)
    buffer, crc = memoryview(bytearray(BUFFER_BYTES)), 0
    while left:
        filled = 0
        while filled < min(len(buffer), left):
            filled += origin.recv_into(buffer[filled:])
        crc = checksums.crc64nvme(cast(bytes, buffer[:filled]), crc)
        server.sendall(buffer[:filled])
        left -= filled
    server.recv(1000)
    print(json.dumps({"seconds": time.perf_counter() - started, "cpu": own_cpu() - cpu}))


def _dial(url: SplitResult) -> socket.socket:
    plain = socket.create_connection((url.hostname or "", url.port or 0), timeout=30)
    if url.scheme == "http":
        return plain
    context = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
    return context.wrap_socket(plain, server_hostname=url.hostname)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
