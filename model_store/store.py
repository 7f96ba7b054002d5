"""The store: append-only versions and promotions of models, the same on every storage.

    <name>/versions/3/weights.safetensors … manifest.json    `versions.py`
    <name>/promotions/7.json                                 `_promotions.py`, a ledger
    <name>/pruned/2.0123456789abcdef.json                    `_pruning.py`

Nothing is overwritten or ordered by time, so a crash at any instant leaves the old state or the new one.
Only pruning, here, removes anything.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from model_store._promotions import Promotions
from model_store._pruning import pruned_versions, record_pruning
from model_store._storage import LocalDisk
from model_store.errors import ExtraMissing, StoreUrlInvalid, VersionInUse, VersionNotFound
from model_store.manifest import MANIFEST, check_name
from model_store.versions import folder_of

UNFINISHED_FOR_GOOD = timedelta(days=1)
REMOTE_SCHEMES = ("s3", "gs", "az", "memory")


class Store(Promotions):
    """The versions and promotions of every model in one storage, and what may be removed of them."""

    def prunable(self, name: str, keep: int) -> dict[int, str]:
        """The versions that need not be kept, each with the reason.

        These are the finished ones but the newest `keep`, the promoted one and the one before it; and the
        unfinished ones older than a day.
        Raises InvalidName, ModelNotFound, PromotionInvalid or StorageFailed.
        """
        in_use, pruned = self._in_use(name), pruned_versions(self._storage, name)
        finished = self.known_versions(name)
        old = finished[: max(0, len(finished) - keep)] if in_use else []
        reasons: dict[int, str] = {}
        for number in self._claimed(name):
            folder = folder_of(name, number)
            if number in pruned and self._storage.list(folder):
                reasons[number] = "its pruning was interrupted"
            elif number in old:
                reasons[number] = f"older than the newest {keep}"
            elif number not in {*finished, *pruned} and self._is_old(folder):
                reasons[number] = "unfinished for more than a day"
        return {number: reason for number, reason in reasons.items() if number not in in_use}

    def prune(self, name: str, number: int, reason: str) -> None:
        """Remove a version for good.

        Its record is written first and the promotions are read after it, as `promote` writes first and
        then reads the records: of two that meet, at least one sees the other and gives way.
        Raises VersionInUse for the promoted one and the one before it; InvalidName, ModelNotFound,
        VersionNotFound, PromotionInvalid or StorageFailed.
        """
        known = {*self._claimed(check_name(name)), *pruned_versions(self._storage, name)}
        if number not in known:
            raise VersionNotFound(name, number, self.known_versions(name))
        record = record_pruning(self._storage, name, number, reason)
        if number in self._in_use(name):
            self._storage.remove(record)
            raise VersionInUse(name, number)
        self._storage.remove(f"{folder_of(name, number)}/{MANIFEST}")
        self._storage.remove(folder_of(name, number))

    def _is_old(self, folder: str) -> bool:
        return datetime.now(UTC) - self._storage.modified(folder) > UNFINISHED_FOR_GOOD


def open_store(url: str) -> Store:
    """Open the store at `url`, a folder or an object store's URL; it need not exist yet.

    Raises StoreUrlInvalid, ExtraMissing or StorageFailed.
    """
    scheme, is_url, _ = url.partition("://")
    if not is_url:
        return Store(LocalDisk(Path(url)))
    if scheme not in REMOTE_SCHEMES:
        raise StoreUrlInvalid(url)
    try:
        from model_store._remote import ObjectStorage  # noqa: PLC0415  (an extra that a local store does not need)
    except ModuleNotFoundError:
        raise ExtraMissing(url) from None
    return Store(ObjectStorage(url))
