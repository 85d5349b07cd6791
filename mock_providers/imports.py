"""`/{provider}/import`: takes a site's data back, by tus 1.0.0 with its creation, checksum and termination.

The rules are those of https://tus.io/protocols/resumable-upload; what isn't tus is the `GET` of an upload, which says
what became of the import.
"""

import asyncio
import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from mock_providers.behaviour import FromByte, ImportBehaviour, Method, Refusal, happens
from mock_providers.body import DRIPS_PER_SECOND, Connection, ConnectionEndedError, split
from mock_providers.export import SESSION_COOKIE
from mock_providers.fields import InvalidFieldError, check_id, check_provider
from mock_providers.held import NoRoomError, Store
from mock_providers.sites import Site, Sites
from mock_providers.uploads import Upload

VERSION = "1.0.0"
_ALGORITHMS = ("sha1", "sha256", "md5")
_CHECKSUM_MISMATCH = 460
_CRC_BYTES = 8
_TUS = {"tus-resumable": VERSION}


class RefusedError(Exception):
    """The answer is an error."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass(frozen=True)
class Call:
    """One request to a site's import API, of `upload` if its URL is that of a known one."""

    request: Request
    method: str
    provider: str
    site_id: str
    site: Site
    upload: Upload | None
    connection: Connection

    @property
    def behaviour(self) -> ImportBehaviour:
        return self.site.behaviour.imports

    @property
    def path(self) -> str:
        return f"/{self.provider}/import/{self.site_id}"

    def reaches[F: FromByte](self, fault: F | None) -> F | None:
        """The fault, if it happens to the upload as it is; counts down."""
        offset = self.upload.offset if self.upload else 0
        return fault if fault and offset >= fault.start and fault.take() else None

    def fault[F: FromByte](self, faults: Mapping[Method, F]) -> F | None:
        """The fault of this method, if it happens; counts down."""
        return self.reaches(next((fault for method, fault in faults.items() if method == self.method), None))


class ImportEndpoint:
    """The ASGI application behind the import API's routes. Raises InvalidFieldError and TooManySitesError."""

    def __init__(self, sites: Sites, store: Store) -> None:
        self._sites, self._store = sites, store
        self._processing: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        # Servers must look at this header first: clients behind proxies that know no PATCH send it with POST.
        method = request.headers.get("x-http-method-override", request.method).upper()
        if method not in ("OPTIONS", "GET") and request.headers.get("tus-resumable") != VERSION:
            answer = _problem(412, f"Tus-Resumable must be {VERSION}", {"tus-version": VERSION})
            return await answer(scope, receive, send)
        site_id = _site_id(request, method)
        if site_id is None:  # an OPTIONS for the provider as a whole
            return await self._options(ImportBehaviour())(scope, receive, send)
        provider = check_provider(request.path_params["provider"])
        site = self._sites.get(provider, site_id)
        upload = site.imports.uploads.get(request.path_params.get("upload_id", ""))
        connection = Connection(scope["state"]["transport"], receive, send, site.statistics)
        call = Call(request, method, provider, site_id, site, upload, connection)
        with site.imports.statistics.in_progress():
            try:
                await self._serve(call, scope, receive, send)
            except ConnectionEndedError:
                return None

    async def _serve(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        answers = call.site.imports.statistics.by_answer
        refusal = None
        try:
            _check_token(call)
            refusal = call.fault(call.behaviour.refuse)
            answer = _refused(refusal) if refusal else await self._answer(call)
        except RefusedError as error:
            answer = _problem(error.status, str(error), error.headers)
        except InvalidFieldError as error:
            answer = JSONResponse({"field": error.field, "detail": error.detail}, 400, _TUS)
        slow = call.fault(call.behaviour.slow_answer)
        if slow:
            await call.connection.pause(slow.seconds)
        if call.fault(call.behaviour.lose_answer):
            answers[f"{call.method} lost"] += 1
            await call.connection.close()
        answers[f"{call.method} {answer.status_code}"] += 1
        await answer(scope, receive, send)
        if refusal and refusal.close:
            await call.connection.close()

    async def _answer(self, call: Call) -> Response:
        if call.method == "OPTIONS":
            return self._options(call.behaviour)
        if "upload_id" not in call.request.path_params:
            if call.method != "POST" or "creation" not in call.behaviour.extensions:
                raise RefusedError(
                    405, "an import is begun by POST, where that is offered", allow="OPTIONS, POST"
                )
            return self._create(call)
        upload = await self._upload(call)
        if call.method == "HEAD":
            return _offset(call, upload, 200)
        if call.method == "PATCH":
            await self._receive(call, upload)
            return _offset(call, upload, 204)
        if call.method == "GET":
            return _state(call.request, upload)
        if call.method == "DELETE" and "termination" in call.behaviour.extensions:
            _check_unlocked(upload)
            upload.forget()
            return Response(status_code=204, headers=_TUS)
        raise RefusedError(405, "not of an upload", allow="OPTIONS, HEAD, PATCH, GET, DELETE")

    def _max_size(self, behaviour: ImportBehaviour) -> int:
        return self._store.limit if behaviour.max_size is None else behaviour.max_size

    def _options(self, behaviour: ImportBehaviour) -> Response:
        headers = {"tus-version": VERSION, "tus-max-size": str(self._max_size(behaviour))}
        if behaviour.extensions:
            headers["tus-extension"] = ",".join(behaviour.extensions)
        if "checksum" in behaviour.extensions:
            headers["tus-checksum-algorithm"] = ",".join(_ALGORITHMS)
        return Response(status_code=204, headers=_TUS | headers)

    def _create(self, call: Call) -> Response:
        header = call.request.headers.get("upload-metadata", "")
        metadata = _metadata(header)
        user_id = check_id("userId", metadata.get("userId") or call.request.query_params.get("userId"))
        for name in ("restoreId", "jobId"):
            if name in metadata:
                check_id(name, metadata[name])
        crc = _crc(metadata["crc64nvme"]) if "crc64nvme" in metadata else None
        length = _number(call.request, "upload-length")
        if length > self._max_size(call.behaviour):
            raise RefusedError(413, f"an upload has at most {self._max_size(call.behaviour)} bytes")
        try:
            held = self._store.hold(length)
        except NoRoomError as error:
            raise RefusedError(507, str(error)) from error
        upload = Upload(
            id=secrets.token_hex(16),
            user_id=user_id,
            restore_id=metadata.get("restoreId"),
            crc64nvme=crc,
            metadata=header,
            held=held,
            length=length,
        )
        call.site.imports.add(upload)
        self._import_if_whole(call, upload)
        location = f"{call.path}/{upload.id}"
        if not happens(call.behaviour.relative_location):
            location = f"{str(call.request.base_url).rstrip('/')}{location}"
        wrong = call.behaviour.wrong_location
        if wrong and wrong.take():
            location = wrong.location
        cookie = {"set-cookie": f"{SESSION_COOKIE}; HttpOnly"}
        return Response(status_code=201, headers=_TUS | {"location": location} | cookie)

    async def _upload(self, call: Call) -> Upload:
        """The upload that the request is about, once the faults that may have befallen it are done."""
        upload = call.upload
        if upload is None:
            raise RefusedError(404, "there is no such upload")
        forget = call.reaches(call.behaviour.forget) if upload.gone is None else None
        if forget:
            upload.forget(forget.code)
        if upload.gone:
            raise RefusedError(upload.gone, "the upload is gone")
        if upload.state == "receiving" and not upload.locked:
            lost = call.reaches(call.behaviour.lose_bytes)
            if lost:
                await _rewind(upload, max(0, upload.offset - lost.bytes))
        return upload

    async def _receive(self, call: Call, upload: Upload) -> None:
        """Takes the bytes of a PATCH; once they are all there, the import runs."""
        request = call.request
        if request.headers.get("content-type") != "application/offset+octet-stream":
            raise RefusedError(415, "Content-Type must be application/offset+octet-stream")
        offset = _number(request, "upload-offset")
        _check_unlocked(upload)
        if offset != upload.offset:
            raise RefusedError(409, f"Upload-Offset is {offset}, and the upload is at {upload.offset}")
        checksum = _checksum(request) if "checksum" in call.behaviour.extensions else None
        if (
            "content-length" in request.headers
            and offset + _number(request, "content-length") > upload.length
        ):
            raise RefusedError(413, f"the upload has {upload.length} bytes")
        drip = call.behaviour.drip if call.behaviour.drip and call.behaviour.drip.take() else None
        call.site.imports.statistics.patches += 1
        upload.locked = True
        try:
            async for chunk in request.stream():
                if upload.offset + len(chunk) > upload.length:
                    await _rewind(upload, offset)
                    raise RefusedError(413, f"the upload has {upload.length} bytes")
                if checksum:
                    checksum.digest.update(chunk)
                if not drip:
                    await _append(call, upload, chunk)
                    continue
                for piece in split((chunk,), max(1, drip.bytes_per_second // DRIPS_PER_SECOND)):
                    await call.connection.stall(len(piece) / drip.bytes_per_second)
                    await _append(call, upload, piece)
            if checksum and checksum.digest.digest() != checksum.expected:
                await _rewind(upload, offset)
                raise RefusedError(_CHECKSUM_MISMATCH, "the bytes have another checksum")
        except ClientDisconnect:
            raise ConnectionEndedError from None
        finally:
            upload.locked = False
        self._import_if_whole(call, upload)

    def _import_if_whole(self, call: Call, upload: Upload) -> None:
        if upload.offset < upload.length or upload.state != "receiving":
            return
        upload.state = "processing"
        fails = call.behaviour.import_fails
        failure = fails.message if fails and fails.take() else None
        if not call.behaviour.import_seconds:
            call.site.imports.carry_out(upload, failure)
            return

        async def later(seconds: float) -> None:
            await asyncio.sleep(seconds)
            call.site.imports.carry_out(upload, failure)

        task = asyncio.create_task(later(call.behaviour.import_seconds))
        self._processing.add(task)
        task.add_done_callback(self._processing.discard)


async def _append(call: Call, upload: Upload, piece: bytes) -> None:
    """Stores the bytes, with the faults that happen between them.

    Without a fault it awaits nothing: what came before a connection broke is only there to be read until the server
    has seen the break.
    """
    hang, cut = call.behaviour.hang, call.behaviour.cut_at
    positions = ([hang.after_bytes] if hang else []) + ([cut.bytes] if cut else [])
    end = upload.offset + len(piece)
    for position in sorted({at for at in positions if upload.offset <= at < end}):
        before = position - upload.offset
        _write(call, upload, piece[:before])
        piece = piece[before:]
        if hang and hang.after_bytes == position and hang.take():
            await call.connection.stall(hang.seconds)
        if cut and cut.bytes == position and cut.take():
            await call.connection.close()
    _write(call, upload, piece)


def _write(call: Call, upload: Upload, data: bytes) -> None:
    if upload.gone:
        raise RefusedError(upload.gone, "the upload is gone")
    upload.append(data)
    call.site.imports.statistics.bytes_received += len(data)


async def _rewind(upload: Upload, offset: int) -> None:
    upload.locked = True
    try:
        await asyncio.to_thread(upload.rewind, offset)
    finally:
        upload.locked = False


def _site_id(request: Request, method: str) -> str | None:
    """The site that the request is about; None for an OPTIONS that names none. Raises InvalidFieldError."""
    named = request.path_params.get("site_id") or request.query_params.get("siteId")
    if method == "POST":
        in_metadata = _metadata(request.headers.get("upload-metadata", "")).get("siteId", named)
        if named not in (None, in_metadata):
            raise InvalidFieldError("siteId", "is another one in the metadata than in the URL")
        named = in_metadata
    return None if named is None and method == "OPTIONS" else check_id("siteId", named)


def _metadata(header: str) -> dict[str, str]:
    """Upload-Metadata: pairs of a key and a value in base64, which may be missing. Raises InvalidFieldError."""
    metadata = {}
    for pair in filter(None, header.split(",")):
        key, _, value = pair.strip().partition(" ")
        try:
            metadata[key] = base64.b64decode(value, validate=True).decode()
        except ValueError as error:  # also what base64 and UTF-8 raise
            raise InvalidFieldError("Upload-Metadata", f"{key} is not UTF-8 in base64") from error
    return metadata


def _crc(text: str) -> int:
    """A CRC64NVME as S3 writes it: 8 bytes, big endian, in base64. Raises InvalidFieldError."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if len(data) != _CRC_BYTES:
        raise InvalidFieldError("crc64nvme", f"must be {_CRC_BYTES} bytes in base64")
    return int.from_bytes(data)


def _number(request: Request, header: str) -> int:
    value = request.headers.get(header, "")
    if not re.fullmatch("[0-9]{1,18}", value):
        raise InvalidFieldError(header, "must be a number of bytes")
    return int(value)


@dataclass(frozen=True)
class Checksum:
    """What the bytes of one PATCH must come to."""

    digest: "hashlib._Hash"
    expected: bytes


def _checksum(request: Request) -> Checksum | None:
    """What Upload-Checksum says, if it is there. Raises InvalidFieldError."""
    header = request.headers.get("upload-checksum")
    if header is None:
        return None
    algorithm, _, value = header.partition(" ")
    if algorithm not in _ALGORITHMS:
        raise InvalidFieldError("Upload-Checksum", f"must be one of {', '.join(_ALGORITHMS)}")
    try:
        expected = base64.b64decode(value, validate=True)
    except ValueError as error:
        raise InvalidFieldError("Upload-Checksum", "must be in base64") from error
    return Checksum(hashlib.new(algorithm, usedforsecurity=False), expected)


def _check_token(call: Call) -> None:
    token = call.site.behaviour.require_token
    if "cookie" in call.request.headers:
        raise RefusedError(400, "a session belongs to one tenant: no cookie may come back")
    if token and call.request.headers.get("authorization") != f"Bearer {token}":
        raise RefusedError(401, "the bearer token is missing or wrong", www_authenticate="Bearer")


def _check_unlocked(upload: Upload) -> None:
    if upload.locked:
        raise RefusedError(423, "another request is writing to the upload")


def _offset(call: Call, upload: Upload, status: int) -> Response:
    wrong = call.fault(call.behaviour.wrong_offset)
    headers = {
        "upload-offset": str(upload.offset + (wrong.by if wrong else 0)),
        "upload-length": str(upload.length),
        "cache-control": "no-store",
    }
    if upload.metadata:
        headers["upload-metadata"] = upload.metadata
    return Response(status_code=status, headers=_TUS | headers)


def _state(request: Request, upload: Upload) -> Response:
    """What became of the import; before all bytes are there, nothing has."""
    accepted = request.headers.get("accept", "*/*")
    if not re.search(r"application/(json|\*)|\*/\*", accepted):
        raise RefusedError(406, "the state of an import is application/json")
    state: dict[str, str] = {"state": "processing" if upload.open else upload.state}
    if upload.message:
        state["message"] = upload.message
    return JSONResponse(state, headers=_TUS | {"cache-control": "no-store"})


def _refused(refusal: Refusal) -> Response:
    headers = {} if refusal.retry_after is None else {"retry-after": str(refusal.retry_after)}
    return _problem(refusal.code, "a fault set through the control API", headers)


def _problem(code: int, detail: str, headers: Mapping[str, str] = {}) -> Response:
    return JSONResponse({"detail": detail}, status_code=code, headers=_TUS | {**headers})
