"""Promotions: a ledger for each model, whose last entry says which version is the promoted one.

    <name>/promotions/7.json    the highest generation holds

Rolling back is promoting the version before; nothing is overwritten or ordered by time.
"""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AwareDatetime, Field, PositiveInt

from model_store._ledger import Entry, Ledger
from model_store._pruning import pruned_versions
from model_store._storage import Storage
from model_store.errors import (
    ManifestInvalid,
    NothingPromoted,
    NothingToRollBackTo,
    PathTaken,
    PromotionInvalid,
    VersionPruned,
)
from model_store.manifest import MANIFEST, check_name
from model_store.parts import Sha256
from model_store.versions import Version, Versions, folder_of

LONGEST_REASON = 2_000


class Promotion(Entry):
    """One line of a model's history: which version became the promoted one, when and why."""

    version: PositiveInt
    digest: Sha256
    previous: PositiveInt | None
    promoted_at: AwareDatetime
    reason: Annotated[str, Field(max_length=LONGEST_REASON)] | None


def promotions_of(storage: Storage, name: str) -> Ledger[Promotion]:
    """A model's promotions; raises InvalidName."""
    return Ledger(storage, f"{check_name(name)}/promotions", Promotion, PromotionInvalid)


def following(current: Promotion | None, number: int, digest: str, reason: str | None) -> Promotion:
    """The promotion of a version that follows on the current one."""
    return Promotion(
        generation=current.generation + 1 if current else 1,
        version=number,
        digest=digest,
        previous=current.version if current else None,
        promoted_at=datetime.now(UTC),
        reason=reason,
    )


class Promotions(Versions):
    """The versions of every model in one storage, and which of them are promoted."""

    def promoted(self, name: str) -> Promotion:
        """The promotion in force.

        Raises InvalidName, ModelNotFound, NothingPromoted, PromotionInvalid or StorageFailed.
        """
        promotion = promotions_of(self._storage, name).latest()
        if promotion is None:
            raise NothingPromoted(name, self.url, self.known_versions(name))
        return promotion

    def load_promoted(self, name: str) -> Version:
        """Load the promoted version and check that it is the very one that was promoted.

        Raises what `promoted` and `load` raise, ManifestInvalid for another version in its place.
        """
        promotion = self.promoted(name)
        version = self.load(name, promotion.version)
        self._check_same(version, promotion)
        return version

    def _check_same(self, version: Version, promotion: Promotion) -> None:
        if version.digest != promotion.digest:
            folder = folder_of(version.manifest.name, promotion.version)
            raise ManifestInvalid(
                self._named(folder, MANIFEST),
                f"its digest is {version.digest}, promoted was {promotion.digest}",
            )

    def promote(self, name: str, number: int, reason: str | None = None) -> Promotion:
        """Verify a version and make it the promoted one; one that is promoted already stays so.

        Raises what `load` raises; PromotionInvalid if a promotion before is damaged or missing, VersionPruned
        if the version was removed meanwhile.
        """
        version = self.load(name, number)
        while True:
            # Where another promotion came first, this one follows on that.
            with suppress(PathTaken):
                return self._promote(version, reason)

    def _promote(self, version: Version, reason: str | None) -> Promotion:
        """One attempt; raises PathTaken, and what `promote` raises."""
        name, number = version.manifest.name, version.manifest.version
        promotions = promotions_of(self._storage, name)
        promotions.check_gapless()
        current = promotions.latest()
        if current and current.version == number:
            self._check_same(version, current)
            # Who wrote it may have been killed before it was on the disk; `append` sees to that.
            with suppress(PathTaken):
                promotions.append(current)
            return current
        promotion = following(current, number, version.digest, reason)
        promotions.append(promotion)
        if number in pruned_versions(self._storage, name):
            if current:
                with suppress(PathTaken):
                    promotions.append(
                        following(promotion, current.version, current.digest, f"{number} was pruned")
                    )
            raise VersionPruned(name, number)
        return promotion

    def rollback(self, name: str, reason: str | None = None) -> Promotion:
        """Promote the version that was promoted before the present one.

        Raises what `promoted` and `promote` raise; NothingToRollBackTo if there was none.
        """
        current = self.promoted(name)
        if current.previous is None:
            raise NothingToRollBackTo(name, current.version)
        return self.promote(name, current.previous, reason)

    def history(self, name: str) -> list[Promotion]:
        """Every promotion of a model, oldest first.

        Raises InvalidName, StorageFailed or PromotionInvalid, for a gap too.
        """
        ledger = promotions_of(self._storage, name)
        promotions = ledger.entries()
        previous = [None, *(promotion.version for promotion in promotions)]
        for promotion, before in zip(promotions, previous, strict=False):
            if promotion.previous != before:
                raise ledger.refused(promotion.generation, "it does not follow on the one before it")
        return promotions

    def _in_use(self, name: str) -> set[int]:
        """The promoted version and the one before it."""
        promotion = promotions_of(self._storage, name).latest()
        return {promotion.version, promotion.previous or promotion.version} if promotion else set()
