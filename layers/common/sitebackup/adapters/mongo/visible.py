"""The one place where what a caller may reach becomes a part of a query (I21)."""

from typing import Any

from ...domain.principal import Access


def visible(access: Access, *site_fields: str) -> dict[str, Any]:
    """To be merged into a query of documents with a `userId`, and with a site in each of these fields.

    It is an `$and`, so that no condition of the query takes the place of one of these.
    """
    within: dict[str, Any] = {} if access.user_id is None else {"userId": access.user_id}
    if access.sites is not None:
        within |= {field: {"$in": sorted(access.sites)} for field in site_fields}
    return {"$and": [within]} if within else {}
