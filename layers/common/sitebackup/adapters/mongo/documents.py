"""How documents are stored: what MongoDB's ids and indexes need is added here, and known nowhere else."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...domain.job import Job
from ...domain.model import Model
from ...domain.restore import Restore

if TYPE_CHECKING:
    from ...domain.schedule import Schedule


def site_document(document: Job | Restore) -> dict[str, Any]:
    """`active` is there only while it claims its site: the unique index is on it (I10). Quotas sum up `heldBytes`.

    The next check is its own: whoever stores a document has derived it with `with_next_check`.
    """
    claim = {"active": True} if document.claims_site else {}
    held = {"heldBytes": document.held_bytes} if isinstance(document, Job) and document.held_bytes else {}
    return {**to_document(document, "id"), "kind": document.kind, **claim, **held}


def schedule_document(schedule: "Schedule") -> dict[str, Any]:
    """Its `_id` puts schedules in the order of users and sites."""
    return {"_id": schedule.id, **schedule.to_document()}


def to_document(model: Model, id_field: str) -> dict[str, Any]:
    """With the field of that name as `_id`."""
    document = model.to_document()
    return {"_id": document.pop(id_field), **document}


def from_document[M: Model](kind: type[M], document: Mapping[str, Any], id_field: str) -> M:
    """The opposite. Raises msgspec.ValidationError, which names the offending field."""
    return kind.from_document({**document, id_field: document.get("_id")})


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What to set and what to unset so that `old` becomes `new`, by dotted path.

    Tasks are compared field by field, other values as a whole: a task has several writers and may have got fields
    of a newer release as well.
    """
    changes: dict[str, Any] = {}
    gone: list[str] = []

    def compare(old: Mapping[str, Any], new: Mapping[str, Any], path: str, depth: int) -> None:
        gone.extend(f"{path}{name}" for name in old.keys() - new.keys())
        for name, value in new.items():
            if depth and isinstance(value, dict) and isinstance(old.get(name), dict):
                compare(old[name], value, f"{path}{name}.", depth - 1)
            elif old.get(name) != value:
                changes[f"{path}{name}"] = value

    compare({**old, "tasks": {}}, {**new, "tasks": {}}, "", 0)
    compare(old.get("tasks", {}), new.get("tasks", {}), "tasks.", 1)
    return changes, gone
