"""`python -m benchmarks.origin FILE PORT [CERTIFICATE KEY]`: serves one file, with ranges and a strong ETag.

Plain connections use sendfile(2): the origin costs next to nothing, so that the clients are what is measured.
"""

import contextlib
import mmap
import os
import re
import socket
import ssl
import sys
import threading

CHUNK = 4 * 1024 * 1024


def main(path: str, port: int, tls: ssl.SSLContext | None) -> None:
    with open(path, "rb") as file, socket.create_server(("127.0.0.1", port), backlog=128) as listener:
        size = os.fstat(file.fileno()).st_size
        mapped = mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ)
        while True:
            client, _ = listener.accept()
            arguments = (client, file.fileno(), memoryview(mapped), size, tls)
            threading.Thread(target=connection, args=arguments, daemon=True).start()


def connection(
    client: socket.socket, file: int, mapped: memoryview, size: int, tls: ssl.SSLContext | None
) -> None:
    with contextlib.suppress(OSError):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            client = tls.wrap_socket(client, server_side=True)
        reader = client.makefile("rb")
        while request := reader.readline():
            start, end, ranged = 0, size, False
            while (line := reader.readline().strip()) != b"":
                if asked := re.match(rb"(?i)range: bytes=(\d+)-(\d*)", line):
                    start, end = int(asked[1]), min(int(asked[2] or size), size - 1) + 1
                    ranged = True
            head = [
                "HTTP/1.1 " + ("206 Partial Content" if ranged else "200 OK"),
                'ETag: "bench"',
                "Accept-Ranges: bytes",
                "Content-Type: application/zip",
                "Last-Modified: Mon, 05 Jan 2026 00:00:00 GMT",
                f"Content-Length: {end - start}",
            ]
            if ranged:
                head.append(f"Content-Range: bytes {start}-{end - 1}/{size}")
            client.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
            if request.startswith(b"HEAD"):
                continue
            while start < end:
                if tls:
                    piece = mapped[start : min(end, start + CHUNK)]
                    client.sendall(piece)
                    start += len(piece)
                else:
                    start += os.sendfile(client.fileno(), file, start, min(end - start, CHUNK))
    client.close()


if __name__ == "__main__":
    context = None
    if len(sys.argv) > 3:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[3], sys.argv[4])
    main(sys.argv[1], int(sys.argv[2]), context)
