"""The providers' settings from where they are kept in versions: an SSM parameter, or an object in S3."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from itertools import chain, islice
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from ..domain.errors import SettingsUnavailable
from ..domain.plan import MIB
from ..domain.provider import Provider, ProvidersError, parse_providers
from ..telemetry import count, logger

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REFRESH_SECONDS = 60.0
"""They are read again after so long."""
RETRY_SECONDS = 5.0
"""While there are none they are read again after so long, as a 503 asks its caller to wait."""
UNKNOWN_READS = 20
"""Between two such readings, for names that they lack."""
MAX_VERSIONS = 5
"""So many are looked at, the newest first, for one that is right."""
MAX_BYTES = MIB


class Version(NamedTuple):
    """One version of the text. If `unreadable` says why it can't be read, `text` is empty."""

    id: str
    text: bytes
    unreadable: str = ""


class VersionedText(Protocol):
    """A text that is kept with its earlier versions."""

    @property
    def source(self) -> str:
        """As the setting names it."""
        ...

    def newest(self) -> Version:
        """Raises SettingsUnavailable."""
        ...

    def earlier(self, newest: Version) -> Iterator[Version]:
        """The others, newest first, each read when it is asked for. Raises SettingsUnavailable."""
        ...


class ProviderSettings(Mapping[str, Provider]):
    """The providers by name, read when they are first asked for, then again every minute.

    A version that is wrong is refused, and the newest one that is right is used. If nothing can be read, or none of
    the newest versions is right, what is in use stays in use; who asks before there is any gets SettingsUnavailable,
    and so does who asks for a name that it lacks while nothing can be read.
    Each call is answered from one version, and the next call maybe from a newer one: who needs two things of a
    provider keeps the provider. Threads may share it.
    """

    def __init__(self, text: VersionedText, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._text = text
        self._monotonic = monotonic
        self._reading = Lock()
        self._due = -math.inf
        self._unknown_reads = 0
        """That are left until they are due."""
        self._is_unread = False
        """Whether the last reading failed."""
        self._newest: Version | None = None
        self._is_newest_good = True
        self._good: dict[str, Provider] = {}
        """Of the version in use; empty only before there is one, as an empty list is refused."""

    def __getitem__(self, name: str) -> Provider:
        current = self._current()
        if name not in current:
            current = self._newer(current)
            if name not in current and self._is_unread:
                raise SettingsUnavailable(
                    f"The settings of the providers can't be read; those in use lack {name}."
                )
        return current[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._current())

    def __len__(self) -> int:
        return len(self._current())

    def _current(self) -> dict[str, Provider]:
        """The version in use. While one thread reads, the others go on with it, or wait if there is none."""
        if self._is_due and self._reading.acquire(blocking=not self._good):
            try:
                if self._is_due:  # unless another thread has just read them
                    self._unknown_reads = UNKNOWN_READS
                    self._refresh()
            finally:
                self._reading.release()
        if not self._good:
            raise SettingsUnavailable("There are no settings of the providers that can be used now.")
        return self._good

    def _newer(self, seen: dict[str, Provider]) -> dict[str, Provider]:
        """For a name that is not in `seen`: another environment may know it already, and have made a job for it."""
        with self._reading:
            if self._good is seen and self._unknown_reads:
                self._unknown_reads -= 1
                self._refresh()
        return self._good

    @property
    def _is_due(self) -> bool:
        return self._monotonic() >= self._due

    def _refresh(self) -> None:
        try:
            self._take(self._text.newest())
            self._is_unread = False
        except SettingsUnavailable as error:
            self._is_unread = True
            self._unknown_reads = 0
            count("ProviderSettingsUnread")
            logger.error(
                "provider settings not read",
                extra={"source": self._text.source, "error": str(error), "inUse": bool(self._good)},
            )
        finally:
            self._due = self._monotonic() + (REFRESH_SECONDS if self._good else RETRY_SECONDS)

    def _take(self, newest: Version) -> None:
        """Puts the newest version that is right in use. All environments come to the same one, whatever they had."""
        if newest != self._newest:
            versions = islice(chain([newest], self._text.earlier(newest)), MAX_VERSIONS)
            used = next(filter(self._put_in_use, versions), None)
            self._newest, self._is_newest_good = newest, used is newest
        if not self._is_newest_good:
            count("ProviderSettingsRefused")

    def _put_in_use(self, version: Version) -> bool:
        """Whether it is right."""
        context = {"source": self._text.source, "version": version.id}
        try:
            if version.unreadable:
                raise ProvidersError(version.unreadable)
            self._good = parse_providers(version.text)
        except ProvidersError as error:
            logger.error("provider settings refused", extra={**context, "error": str(error)})
            return False
        logger.info("provider settings in use", extra={**context, "providers": len(self._good)})
        return True


class ParameterVersions:
    """An SSM parameter, of the type String or SecureString; SSM keeps its last 100 versions.

    https://docs.aws.amazon.com/systems-manager/latest/userguide/sysman-paramstore-versions.html
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name
        self.source = f"ssm:{name}"

    def newest(self) -> Version:
        """Raises SettingsUnavailable."""
        with _translated("Parameter Store"):
            return _version(self._client.get_parameter(Name=self._name, WithDecryption=True)["Parameter"])

    def earlier(self, newest: Version) -> Iterator[Version]:
        """Those before it, newest first. Raises SettingsUnavailable."""
        with _translated("Parameter Store"):
            pages = self._client.get_paginator("get_parameter_history").paginate(
                Name=self._name, WithDecryption=True, PaginationConfig={"MaxItems": 100}
            )
            found = [each for page in pages for each in page["Parameters"]]
        for each in sorted(found, key=lambda each: -each["Version"]):
            if each["Version"] < int(newest.id):
                yield _version(each)


def _version(parameter: Mapping[str, Any]) -> Version:
    return Version(str(parameter["Version"]), parameter["Value"].encode())


class ObjectVersions:
    """An object in a bucket with versioning on."""

    def __init__(self, client: "S3Client", bucket: str, key: str) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self.source = f"s3://{bucket}/{key}"

    def newest(self) -> Version:
        """Raises SettingsUnavailable."""
        return self._read()

    def earlier(self, newest: Version) -> Iterator[Version]:
        """The others, newest first. Raises SettingsUnavailable.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/list-obj-version-enabled-bucket.html
        """
        with _translated("S3"):
            listing = self._client.list_object_versions(Bucket=self._bucket, Prefix=self._key)
        for each in listing.get("Versions", []):
            if each["Key"] == self._key and each["VersionId"] != newest.id:
                yield self._read(each["VersionId"])

    def _read(self, version_id: str = "") -> Version:
        """Of the newest without an id. One that is missing is unreadable, so that an earlier one can be used.

        S3 answers 403 instead of 404 to who may not list the bucket.
        """
        version = {"VersionId": version_id} if version_id else {}
        with _translated("S3"):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._key, **version)  # type: ignore[arg-type]
            except ClientError as error:
                code = error.response["Error"]["Code"]
                if code not in ("NoSuchKey", "NoSuchVersion", "AccessDenied"):
                    raise
                return Version(version_id, b"", f"S3 answered {code}")
            found = answer.get("VersionId", "")
            with closing(answer["Body"]) as body:
                if answer["ContentLength"] > MAX_BYTES:
                    return Version(found, b"", f"the object is larger than {MAX_BYTES} bytes")
                return Version(found, body.read())


@contextmanager
def _translated(service: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise SettingsUnavailable(f"{service} answered {error.response['Error']['Code']}.") from error
    except BotoCoreError as error:
        raise SettingsUnavailable(f"{service} can't be reached: {type(error).__name__}.") from error
