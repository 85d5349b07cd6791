"""Backups in S3: multipart uploads whose every byte is covered by a CRC64NVME.

Checksums: https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from threading import TIMEOUT_MAX
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from ...domain.errors import InvalidPart, NoSuchUpload, ObjectExists, Permanent, Transient
from ...domain.job import FoundVersion, Part, StoredObject
from ...domain.lock import HeldVersion, Lock, LockMode
from ...domain.plan import Plan
from ...domain.reason import Code
from ...ports.runtime import Reader, TimeLeft, no_deadline
from ...ports.storage import MAX_LISTED, KeyContents, ListingPlace, VersionPage
from ...telemetry import count, timed
from .put import OnePassPut, Refused

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_PERMANENT = frozenset(
    {"AccessDenied", "AllAccessDisabled", "InvalidBucketName", "NoSuchBucket", "EntityTooLarge"}
)
_UNLOCKED = frozenset(
    {"NoSuchObjectLockConfiguration", "ObjectLockConfigurationNotFoundError", "NoSuchObjectLegalHold"}
)
"""AWS answers the first; SeaweedFS the others, also for a bucket that can lock."""


class S3Storage:
    """An ObjectStorage: one bucket, with versioning on."""

    def __init__(self, client: "S3Client", bucket: str) -> None:
        self._client = client
        self._put = OnePassPut(client, bucket)
        self.bucket = bucket

    def create_upload(self, key: str) -> str:
        with _translated(), timed("StorageLatency"):
            answer = self._client.create_multipart_upload(
                Bucket=self.bucket,
                Key=key,
                ContentType="application/zip",
                ChecksumAlgorithm="CRC64NVME",
                ChecksumType="FULL_OBJECT",
            )
        return answer["UploadId"]

    def put_part(
        self,
        key: str,
        upload_id: str,
        number: int,
        source: Reader,
        length: int,
        time_left: TimeLeft = no_deadline,
    ) -> Part:
        with _translated(), timed("PartDuration"):
            sent = self._put.moving(
                key, source, length, query=_part_query(upload_id, number), time_left=time_left
            )
        count("PartsMoved")
        return Part(number=number, length=length, etag=sent.etag, crc64nvme=sent.crc64nvme)

    def put_held_part(
        self, key: str, upload_id: str, number: int, data: memoryview, time_left: TimeLeft = no_deadline
    ) -> Part:
        with _translated(), timed("PartDuration"):
            sent = self._put.held(key, data, query=_part_query(upload_id, number), time_left=time_left)
        count("PartsMoved")
        return Part(number=number, length=len(data), etag=sent.etag, crc64nvme=sent.crc64nvme)

    def put_object(self, key: str, data: memoryview, time_left: TimeLeft = no_deadline) -> StoredObject:
        """Raises Transient as well if S3 does not show, by a HEAD, what it has just confirmed."""
        headers = {"Content-Type": "application/zip"}
        with _translated(), timed("PartDuration"):
            sent = self._put.held(key, data, headers=headers, time_left=time_left)
        count("PartsMoved")
        stored = self.head(key, sent.version_id)
        if stored is None or (stored.size, stored.checksum_crc64nvme) != (len(data), sent.crc64nvme):
            raise Transient("S3 does not show the object that it took.")
        return stored

    def lock(self, key: str, version_id: str | None, lock: Lock) -> None:
        """By PutObjectRetention.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectRetention.html
        """
        with _gone_is_permanent(), _translated(), timed("StorageLatency"):
            self._client.put_object_retention(
                Bucket=self.bucket,
                Key=key,
                Retention={
                    "Mode": "COMPLIANCE" if lock.mode is LockMode.COMPLIANCE else "GOVERNANCE",
                    "RetainUntilDate": lock.until,
                },
                **_version(version_id),  # type: ignore[arg-type]
            )

    def set_legal_hold(self, key: str, version_id: str | None, on: bool) -> None:
        """By PutObjectLegalHold.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectLegalHold.html
        """
        with suppress(_NotFound), _translated(), timed("StorageLatency"):
            self._client.put_object_legal_hold(
                Bucket=self.bucket,
                Key=key,
                LegalHold={"Status": "ON" if on else "OFF"},
                **_version(version_id),  # type: ignore[arg-type]
            )

    def held(self, key: str, version_id: str) -> HeldVersion | None:
        """By two calls that need no right to read the data."""
        until, legal_hold = None, False
        try:
            with suppress(_Unlocked), _translated(), timed("StorageLatency"):
                retention = self._client.get_object_retention(
                    Bucket=self.bucket, Key=key, VersionId=version_id
                )
                until = retention["Retention"]["RetainUntilDate"]
            with suppress(_Unlocked), _translated(), timed("StorageLatency"):
                hold = self._client.get_object_legal_hold(Bucket=self.bucket, Key=key, VersionId=version_id)
                legal_hold = hold["LegalHold"]["Status"] == "ON"
        except _NotFound:
            return None
        return HeldVersion(until, legal_hold)

    def put_once(self, key: str, data: bytes, time_left: TimeLeft = no_deadline) -> str | None:
        """By a conditional write.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
        """
        headers = {"Content-Type": "application/json", "If-None-Match": "*"}
        with _translated(), timed("StorageLatency"):
            return self._put.held(key, memoryview(data), headers=headers, time_left=time_left).version_id

    def complete(
        self,
        key: str,
        upload_id: str,
        plan: Plan,
        parts: Sequence[Part],
        crc: str,
        time_left: TimeLeft = no_deadline,
    ) -> None:
        """AWS may take minutes, and keeps the connection alive with white space meanwhile.

        What is not over when no time is left goes on alone.
        https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
        """
        pool = ThreadPoolExecutor(1)
        with _translated(), timed("StorageLatency"):
            completing = pool.submit(
                self._client.complete_multipart_upload,
                Bucket=self.bucket,
                Key=key,
                UploadId=upload_id,
                IfNoneMatch="*",
                MpuObjectSize=plan.size,
                ChecksumType="FULL_OBJECT",
                ChecksumCRC64NVME=crc,
                MultipartUpload={
                    "Parts": [
                        {"PartNumber": part.number, "ETag": part.etag, "ChecksumCRC64NVME": part.crc64nvme}
                        for part in parts
                    ]
                },
            )
            pool.shutdown(wait=False)
            try:
                completing.result(min(time_left(), TIMEOUT_MAX))
            except TimeoutError:
                raise Transient("S3 has not completed the upload in time.") from None

    def head(self, key: str, version_id: str | None = None) -> StoredObject | None:
        try:
            with _translated(), timed("StorageLatency"):
                answer = self._client.head_object(
                    Bucket=self.bucket,
                    Key=key,
                    ChecksumMode="ENABLED",
                    **_version(version_id),  # type: ignore[arg-type]
                )
        except _NotFound:
            return None
        return StoredObject(
            bucket=self.bucket,
            key=key,
            size=answer["ContentLength"],
            checksum_crc64nvme=answer.get("ChecksumCRC64NVME", ""),
            version_id=answer.get("VersionId"),
        )

    def read(self, stored: StoredObject, start: int, length: int) -> bytes:
        """One byte at least: no range is empty. Raises Transient as well if S3 answers another range."""
        wanted = f"bytes {start}-{start + length - 1}/{stored.size}"
        try:
            with _translated(), timed("StorageLatency"):
                answer = self._client.get_object(
                    Bucket=self.bucket,
                    Key=stored.key,
                    Range=f"bytes={start}-{start + length - 1}",
                    **_version(stored.version_id),  # type: ignore[arg-type]
                )
                with closing(answer["Body"]) as body:
                    data = body.read(length)
        except _NotFound as error:
            raise Transient("S3 does not show the object that it took.") from error
        if answer.get("ContentRange") != wanted or len(data) != length:
            raise Transient(f"S3 answered {answer.get('ContentRange')} and not {wanted}.")
        return data

    def part_etags(self, key: str, upload_id: str) -> dict[int, tuple[int, str]]:
        etags: dict[int, tuple[int, str]] = {}
        with _translated(), timed("StorageLatency"):
            pages = self._client.get_paginator("list_parts").paginate(
                Bucket=self.bucket, Key=key, UploadId=upload_id
            )
            for page in pages:
                for part in page.get("Parts", []):
                    etags[part["PartNumber"]] = (part["Size"], part["ETag"])
        return etags

    def has_upload(self, key: str, upload_id: str) -> bool:
        try:
            with _translated(), timed("StorageLatency"):
                self._client.list_parts(Bucket=self.bucket, Key=key, UploadId=upload_id, MaxParts=1)
        except NoSuchUpload:
            return False
        return True

    def abort(self, key: str, upload_id: str) -> None:
        try:
            with _translated(), timed("StorageLatency"):
                self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)
        except NoSuchUpload:
            return

    def at_key(self, key: str) -> KeyContents:
        """S3 lists by prefix, so other keys are passed over. A delete marker is a version as well."""
        uploads: list[str] = []
        versions: list[str] = []
        with _translated(), timed("StorageLatency"):
            for page in self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self.bucket, Prefix=key
            ):
                uploads += [found["UploadId"] for found in page.get("Uploads", []) if found["Key"] == key]
            for listing in self._client.get_paginator("list_object_versions").paginate(
                Bucket=self.bucket, Prefix=key
            ):
                versions += [
                    found["VersionId"] for found in listing.get("Versions", []) if found["Key"] == key
                ]
                versions += [
                    found["VersionId"] for found in listing.get("DeleteMarkers", []) if found["Key"] == key
                ]
        return KeyContents(uploads, versions)

    def list_versions(
        self, prefix: str, after: ListingPlace | None = None, limit: int = MAX_LISTED
    ) -> VersionPage:
        """S3 tells versions and delete markers apart, each kind in order. Some servers show the place itself again.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectVersions.html
        """
        place: dict[str, str] = {}
        if after:
            place["KeyMarker"] = after.key
            if after.version_id:
                place["VersionIdMarker"] = after.version_id
        with _translated(), timed("StorageLatency"):
            answer = self._client.list_object_versions(
                Bucket=self.bucket,
                Prefix=prefix,
                MaxKeys=limit,
                **place,  # type: ignore[arg-type]
            )
        versions = [
            FoundVersion(
                one["Key"], one["VersionId"], one["Size"], False, one["IsLatest"], one["LastModified"]
            )
            for one in answer.get("Versions", [])
        ]
        markers = [
            FoundVersion(one["Key"], one["VersionId"], 0, True, one["IsLatest"], one["LastModified"])
            for one in answer.get("DeleteMarkers", [])
        ]
        found = [one for one in [*versions, *markers] if ListingPlace(one.key, one.version_id) != after]
        more = answer.get("IsTruncated")
        return VersionPage(
            sorted(found, key=lambda one: one.key),
            ListingPlace(answer["NextKeyMarker"], answer.get("NextVersionIdMarker", "")) if more else None,
        )

    def delete_version(self, key: str, version_id: str) -> None:
        with _translated(), timed("StorageLatency"):
            self._client.delete_object(Bucket=self.bucket, Key=key, VersionId=version_id)


def _version(version_id: str | None) -> dict[str, str]:
    return {"VersionId": version_id} if version_id else {}


def _part_query(upload_id: str, number: int) -> dict[str, str | int]:
    return {"partNumber": number, "uploadId": upload_id}


class _Unlocked(Transient):
    """The version has no retention, or no legal hold; or its bucket can't lock."""


class _NotFound(Exception):
    """404 without a code: HEAD has no body."""


@contextmanager
def _gone_is_permanent() -> Iterator[None]:
    try:
        yield
    except _NotFound:
        raise Permanent(Code.STORAGE_REFUSED, "S3 does not show the version any more.") from None


@contextmanager
def _translated() -> Iterator[None]:
    """Tells S3's errors apart.

    Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    """
    try:
        yield
    except ClientError as error:
        status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        raise _meaning(status, error.response["Error"]["Code"]) from error
    except Refused as error:
        raise _meaning(error.status, error.code) from error
    except BotoCoreError as error:
        raise Transient(f"S3 can't be reached: {type(error).__name__}.") from error


def _meaning(status: int, code: str) -> Exception:
    if code == "NoSuchUpload":
        return NoSuchUpload()
    if code in ("InvalidPart", "InvalidPartOrder"):
        return InvalidPart()
    if status == 412 or code in ("ConditionalRequestConflict", "PreconditionFailed"):
        return ObjectExists()
    if code in _PERMANENT:
        return Permanent(Code.STORAGE_REFUSED, f"S3 answered {code}.")
    if code in _UNLOCKED:
        return _Unlocked(f"S3 answered {code}.")
    if code in ("404", "NoSuchKey", "NoSuchVersion"):
        return _NotFound()
    return Transient(f"S3 answered {code}.")
