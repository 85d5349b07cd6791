"""Download links, as the API shows them."""

import msgspec

from ..domain.download import Download
from ..domain.model import Model
from .views import Bytes, Crc64Nvme, Time, time_text


class DownloadView(Model, frozen=True, kw_only=True):
    """A link to one provider's object."""

    url: str
    expires_at: Time
    file_name: str
    size: Bytes
    checksum_crc64nvme: Crc64Nvme = msgspec.field(name="checksumCRC64NVME")
    version_id: str | None = None


def download_view(download: Download) -> DownloadView:
    """With the link."""
    return DownloadView(
        url=download.link.url,
        expires_at=time_text(download.link.expires_at),
        file_name=download.file_name,
        size=download.stored.size,
        checksum_crc64nvme=download.stored.checksum_crc64nvme,
        version_id=download.stored.version_id,
    )
