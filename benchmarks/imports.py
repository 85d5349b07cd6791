"""`python -m benchmarks.imports PORT [CERTIFICATE KEY]`: an import API that takes everything and forgets it.

By tus 1.0.0 below any path, where `/checked` says that it compares a SHA-1 of each slice (it does not); by `PUT`; and
by as much WebDAV as rclone asks for.
"""

import sys
import uuid
from typing import override

from benchmarks.sink import Sink, main, response


class Imports(Sink):
    def __init__(self) -> None:
        super().__init__()
        self.uploads: dict[str, tuple[int, int]] = {}
        """Bytes that have come, and how many there will be."""
        self.puts: dict[str, int] = {}

    @override
    def answer(self, request: str, headers: dict[str, str], length: int, tail: bytes) -> bytes:
        method, path, _ = request.split(" ")
        if method == "OPTIONS":
            checked = path.startswith("/checked")
            extensions = "creation,checksum" if checked else "creation"
            fields = ["Tus-Version: 1.0.0", f"Tus-Extension: {extensions}"]
            return response(204, [*fields, *(["Tus-Checksum-Algorithm: sha1"] if checked else [])])
        if method == "POST":
            location = f"{path}/{uuid.uuid4().hex}"
            self.uploads[location] = (0, int(headers["upload-length"]))
            return response(201, [f"Location: {location}"])
        if method == "PUT":
            self.puts[path] = length
            return response(201, [])
        if method == "PROPFIND" and path in self.puts:
            return response(207, ["Content-Type: text/xml"], _found(path, self.puts[path]))
        if method in ("HEAD", "PATCH") and path in self.uploads:
            offset, size = self.uploads[path]
            if method == "PATCH" and headers["upload-offset"] != str(offset):
                return response(409, [])
            self.uploads[path] = (offset + length, size)
            fields = [f"Upload-Offset: {offset + length}", f"Upload-Length: {size}"]
            return response(200 if method == "HEAD" else 204, fields)
        return response(404, [])


def _found(path: str, size: int) -> str:
    found = f"<d:getcontentlength>{size}</d:getcontentlength><d:resourcetype/>"
    return (
        '<?xml version="1.0"?><d:multistatus xmlns:d="DAV:">'
        f"<d:response><d:href>{path}</d:href><d:propstat><d:prop>{found}</d:prop>"
        "<d:status>HTTP/1.1 200 OK</d:status></d:propstat></d:response></d:multistatus>"
    )


if __name__ == "__main__":
    main(Imports(), sys.argv[1:])
