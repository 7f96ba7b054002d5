"""The records of removed versions. A version's number stays taken when its files are gone.

    <name>/pruned/2.0123456789abcdef.json    why and when version 2 was removed

They are no ledger: a record is withdrawn when the version turns out to be in use, and two that prune the
same version at once each write their own.
"""

import re
import secrets
from datetime import UTC, datetime

from pydantic import AwareDatetime, PositiveInt

from model_store._sealed import dump
from model_store._storage import Storage
from model_store.parts import Part

RECORD = re.compile(r"([1-9][0-9]{0,9})\.[0-9a-f]{16}\.json")


class Pruning(Part):
    """Why and when a version was removed."""

    version: PositiveInt
    pruned_at: AwareDatetime
    reason: str


def pruned_versions(storage: Storage, name: str) -> set[int]:
    """The versions of a model that were removed, or are being removed; raises StorageFailed."""
    found = (re.fullmatch(RECORD, file) for file in storage.list(f"{name}/pruned"))
    return {int(match[1]) for match in found if match}


def record_pruning(storage: Storage, name: str, number: int, reason: str) -> str:
    """Write that a version is removed; gives the record's path. Raises StorageFailed."""
    path = f"{name}/pruned/{number}.{secrets.token_hex(8)}.json"
    pruning = Pruning(version=number, pruned_at=datetime.now(UTC), reason=reason)
    storage.create(path, dump(pruning))
    return path
