"""Restores in MongoDB or Amazon DocumentDB."""

from typing import Any

from pymongo import MongoClient

from ...domain.restore import Restore
from .site_documents import SiteDocuments


class MongoRestores(SiteDocuments[Restore]):
    """One document for each restore, beside the backups: both claim sites under one index (I10)."""

    def __init__(self, client: MongoClient[dict[str, Any]], database: str) -> None:
        super().__init__(client, database, Restore)
