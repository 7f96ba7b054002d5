"""The store: append-only versions and promotions of models, the same on every storage.

    <name>/versions/3/weights.safetensors … manifest.json    the manifest last: with it the version exists
    <name>/promotions/7.json                                 the highest generation says what is promoted
    <name>/pruned/2.0123456789abcdef.json                    why a version was removed; its number stays taken

Creating a version's first file claims its number; whoever loses that race takes the next. Nothing is
overwritten or ordered by time, so a crash at any instant leaves the old state or the new one.
"""

import hashlib
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, Field, PositiveInt

from model_store.errors import (
    ExtraMissing,
    FileDiffers,
    ManifestInvalid,
    ModelNotFound,
    NothingPromoted,
    NothingToRollBackTo,
    NotOneModel,
    PathMissing,
    PathTaken,
    PromotionInvalid,
    StoreUrlInvalid,
    TooLarge,
    VersionInUse,
    VersionNotFound,
    VersionPruned,
    VersionRefused,
)
from model_store.manifest import (
    MANIFEST,
    REPORT,
    WEIGHTS,
    Description,
    FileEntry,
    Manifest,
    check_name,
    is_name,
)
from model_store.parts import Part, Sha256
from model_store.predictor import Predictor, check_golden, load_weights
from model_store.sealed import dump, parse
from model_store.storage import LocalDisk, Storage

MOST_MANIFEST_BYTES, MOST_PROMOTION_BYTES = 64 * 2**20, 2**16
LONGEST_REASON = 2_000
LONGEST_NUMBER = 10
UNFINISHED_FOR_GOOD = timedelta(days=1)
PRUNING = re.compile(r"([1-9][0-9]{0,9})\.[0-9a-f]{16}\.json")
REMOTE_SCHEMES = ("s3", "gs", "az", "memory")


class Promotion(Part):
    """One line of a model's history: which version became the promoted one, when and why."""

    generation: PositiveInt
    version: PositiveInt
    digest: Sha256
    previous: PositiveInt | None
    promoted_at: AwareDatetime
    reason: Annotated[str, Field(max_length=LONGEST_REASON)] | None


class Pruning(Part):
    """Why and when a version was removed."""

    version: PositiveInt
    pruned_at: AwareDatetime
    reason: str


@dataclass(frozen=True)
class Version:
    """A version that passed every check of `Store.load`, and its page with the pictures if it has one."""

    manifest: Manifest
    digest: str
    predictor: Predictor
    report: bytes | None


class Store:
    """The versions and promotions of every model in one storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @property
    def url(self) -> str:
        """How a person names this store."""
        return self._storage.url

    def models(self) -> list[str]:
        """The names of all models, those with a finished version."""
        return [name for name in self._storage.list("") if is_name(name) and self._has_version(name)]

    def only_model(self) -> str:
        """The name of the store's single model; raises NotOneModel."""
        names = self.models()
        if len(names) != 1:
            raise NotOneModel(self.url, names)
        return names[0]

    def versions(self, name: str) -> list[int]:
        """The numbers of a model's finished versions, ascending."""
        return [
            number
            for number in self._numbers(f"{check_name(name)}/versions")
            if self._is_finished(name, number)
        ]

    def _is_finished(self, name: str, number: int) -> bool:
        return MANIFEST in self._storage.list(folder_of(name, number))

    def _has_version(self, name: str) -> bool:
        numbers = self._numbers(f"{name}/versions")
        return any(self._is_finished(name, number) for number in reversed(numbers))

    def publish(
        self, description: Description, weights: bytes, others: Callable[[int], Mapping[str, bytes]]
    ) -> Manifest:
        """Write a new version and return its manifest. It is not promoted.

        Raises TensorsInvalid or GoldenDiffer, before anything is written, for one that `load` would refuse.
        `others` makes the remaining files once the version's number is known.
        """
        where = f"the new version of {description.name}"
        check_golden(Predictor(description, load_weights(description, weights, where)), where)
        number = self._claim(description.name, weights)
        files = {WEIGHTS: weights, **others(number)}
        manifest = Manifest.model_validate(
            {
                **dict(description),
                "version": number,
                "created_at": datetime.now(UTC),
                "files": {file: FileEntry.of(content) for file, content in files.items()},
            }
        )
        folder = folder_of(manifest.name, number)
        content = manifest.to_json()
        if len(content) > MOST_MANIFEST_BYTES:
            raise TooLarge(self._named(folder, MANIFEST), MOST_MANIFEST_BYTES)
        for file in sorted(files.keys() - {WEIGHTS}):
            self._storage.create(f"{folder}/{file}", files[file])
        self._storage.create(f"{folder}/{MANIFEST}", content)
        return manifest

    def _claim(self, name: str, weights: bytes) -> int:
        taken = [*self._numbers(f"{name}/versions"), *self._pruned(name)]
        number = max(taken, default=0) + 1
        while True:
            try:
                self._storage.create(f"{folder_of(name, number)}/{WEIGHTS}", weights)
            except PathTaken:
                number += 1
            else:
                return number

    def load(self, name: str, number: int) -> Version:
        """Read a version once into memory, check everything about it and return it ready to predict.

        Raises ModelNotFound, VersionNotFound, StorageFailed, or the VersionRefused that says what is off.
        """
        manifest, digest = self.read_manifest(name, number)
        folder = folder_of(name, number)
        files = self._read_files(folder, manifest)
        weights = load_weights(manifest, files[WEIGHTS], self._named(folder, WEIGHTS))
        predictor = Predictor(manifest, weights)
        check_golden(predictor, self._named(folder))
        return Version(manifest, digest, predictor, files.get(REPORT))

    def read_manifest(self, name: str, number: int) -> tuple[Manifest, str]:
        """A version's manifest and its digest, without a look at the other files.

        Raises ModelNotFound, VersionNotFound, StorageFailed or ManifestInvalid.
        """
        folder = folder_of(check_name(name), number)
        try:
            content = self._storage.read(f"{folder}/{MANIFEST}", MOST_MANIFEST_BYTES)
        except PathMissing:
            raise VersionNotFound(name, number, self.known_versions(name)) from None
        except TooLarge as error:
            raise ManifestInvalid(self._named(folder, MANIFEST), error.what) from None
        manifest = Manifest.from_json(content, self._named(folder, MANIFEST))
        if (manifest.name, manifest.version) != (name, number):
            raise ManifestInvalid(
                self._named(folder, MANIFEST), f"it is version {manifest.version} of {manifest.name}"
            )
        return manifest, hashlib.sha256(content).hexdigest()

    def _read_files(self, folder: str, manifest: Manifest) -> dict[str, bytes]:
        """The files that the manifest lists, checked; the folder must hold them and nothing else."""
        present, due = set(self._storage.list(folder)), {MANIFEST, *manifest.files}
        if present != due:
            raise VersionRefused(
                self._named(folder), f"it holds the files {sorted(present)} where {sorted(due)} are due"
            )
        return {file: self._read_checked(f"{folder}/{file}", entry) for file, entry in manifest.files.items()}

    def _read_checked(self, path: str, entry: FileEntry) -> bytes:
        try:
            content = self._storage.read(path, entry.size)
        except TooLarge as error:
            raise FileDiffers(self._named(path), f"{error.what}, {entry.size} are due") from None
        if len(content) != entry.size:
            raise FileDiffers(self._named(path), f"{len(content)} bytes, {entry.size} are due")
        if FileEntry.of(content) != entry:
            raise FileDiffers(self._named(path), "its SHA-256 is not the manifest's")
        return content

    def load_promoted(self, name: str) -> Version:
        """Load the promoted version and check that it is the very one that was promoted."""
        promotion = self.promoted(name)
        version = self.load(name, promotion.version)
        self._check_promoted(name, version, promotion)
        return version

    def _check_promoted(self, name: str, version: Version, promotion: Promotion) -> None:
        if version.digest != promotion.digest:
            raise ManifestInvalid(
                self._named(folder_of(name, promotion.version), MANIFEST),
                f"its digest is {version.digest}, promoted was {promotion.digest}",
            )

    def promoted(self, name: str) -> Promotion:
        """The promotion in force; raises ModelNotFound or NothingPromoted."""
        promotion = self._latest_promotion(name)
        if promotion is None:
            raise NothingPromoted(name, self.url, self.known_versions(name))
        return promotion

    def promote(self, name: str, number: int, reason: str | None = None) -> Promotion:
        """Verify a version and make it the promoted one; one that is promoted already stays so."""
        version = self.load(name, number)
        while True:
            current = self._latest_promotion(name)
            if current and current.version == number:
                self._check_promoted(name, version, current)
                # Who wrote it may have been killed before it was on the disk; `create` sees to that.
                with suppress(PathTaken):
                    self._storage.create(promotion_path(name, current.generation), dump(current))
                return current
            try:
                promotion = self._append(name, number, version.digest, current, reason)
            except PathTaken:
                continue
            if number in self._pruned(name):
                if current:
                    with suppress(PathTaken):
                        self._append(name, current.version, current.digest, promotion, f"{number} was pruned")
                raise VersionPruned(name, number)
            return promotion

    def _append(
        self, name: str, number: int, digest: str, current: Promotion | None, reason: str | None
    ) -> Promotion:
        promotion = Promotion(
            generation=current.generation + 1 if current else 1,
            version=number,
            digest=digest,
            previous=current.version if current else None,
            promoted_at=datetime.now(UTC),
            reason=reason,
        )
        self._storage.create(promotion_path(name, promotion.generation), dump(promotion))
        return promotion

    def rollback(self, name: str, reason: str | None = None) -> Promotion:
        """Promote the version that was promoted before the present one."""
        current = self.promoted(name)
        if current.previous is None:
            raise NothingToRollBackTo(name, current.version)
        return self.promote(name, current.previous, reason)

    def history(self, name: str) -> list[Promotion]:
        """Every promotion of a model, oldest first; raises PromotionInvalid, for a gap too."""
        generations = self._numbers(f"{check_name(name)}/promotions", suffix=".json")
        promotions = [self._promotion(name, generation) for generation in generations]
        previous = [None, *(promotion.version for promotion in promotions)]
        for index, promotion in enumerate(promotions):
            if (promotion.generation, promotion.previous) != (index + 1, previous[index]):
                path = self._named(promotion_path(name, promotion.generation))
                raise PromotionInvalid(path, "it does not follow on the one before it")
        return promotions

    def prunable(self, name: str, keep: int) -> dict[int, str]:
        """The versions that need not be kept, each with the reason.

        These are the finished ones but the newest `keep`, the promoted one and the one before it; and the
        unfinished ones older than a day.
        """
        in_use, pruned = self._in_use(name), self._pruned(name)
        finished = self.known_versions(name)
        old = finished[: max(0, len(finished) - keep)] if in_use else []
        reasons: dict[int, str] = {}
        for number in self._numbers(f"{name}/versions"):
            if number in pruned:
                reasons[number] = "its pruning was interrupted"
            elif number in old:
                reasons[number] = f"older than the newest {keep}"
            elif number not in finished and self._is_old(folder_of(name, number)):
                reasons[number] = "unfinished for more than a day"
        return {number: reason for number, reason in reasons.items() if number not in in_use}

    def prune(self, name: str, number: int, reason: str) -> None:
        """Remove a version for good; raises VersionInUse for the promoted one and the one before it.

        Its record is written first and the promotions are read after it, as `promote` writes first and
        then reads the records: of two that meet, at least one sees the other and gives way.
        """
        if number not in (*self._numbers(f"{check_name(name)}/versions"), *self._pruned(name)):
            raise VersionNotFound(name, number, self.known_versions(name))
        pruning = Pruning(version=number, pruned_at=datetime.now(UTC), reason=reason)
        record = f"{check_name(name)}/pruned/{number}.{secrets.token_hex(8)}.json"
        self._storage.create(record, dump(pruning))
        if number in self._in_use(name):
            self._storage.remove(record)
            raise VersionInUse(name, number)
        self._storage.remove(f"{folder_of(name, number)}/{MANIFEST}")
        self._storage.remove(folder_of(name, number))

    def _is_old(self, folder: str) -> bool:
        return datetime.now(UTC) - self._storage.modified(folder) > UNFINISHED_FOR_GOOD

    def _in_use(self, name: str) -> set[int]:
        promotion = self._latest_promotion(name)
        return {promotion.version, promotion.previous or promotion.version} if promotion else set()

    def _pruned(self, name: str) -> list[int]:
        found = (re.fullmatch(PRUNING, file) for file in self._storage.list(f"{name}/pruned"))
        return sorted({int(match[1]) for match in found if match})

    def known_versions(self, name: str) -> list[int]:
        """The numbers of a model's finished versions, ascending; raises ModelNotFound if there are none."""
        known = self.versions(name)
        if not known:
            raise ModelNotFound(name, self.url, self.models())
        return known

    def _latest_promotion(self, name: str) -> Promotion | None:
        generation = max(self._numbers(f"{check_name(name)}/promotions", suffix=".json"), default=0)
        return self._promotion(name, generation) if generation else None

    def _promotion(self, name: str, generation: int) -> Promotion:
        path = promotion_path(name, generation)
        try:
            promotion = parse(Promotion, self._storage.read(path, MOST_PROMOTION_BYTES))
        except ValueError as error:
            raise PromotionInvalid(self._named(path), str(error)) from None
        if promotion.generation != generation:
            raise PromotionInvalid(self._named(path), f"it says it is generation {promotion.generation}")
        return promotion

    def _numbers(self, folder: str, suffix: str = "") -> list[int]:
        stems = (name.removesuffix(suffix) for name in self._storage.list(folder) if name.endswith(suffix))
        return sorted(int(stem) for stem in stems if is_number(stem))

    def _named(self, *path: str) -> str:
        return "/".join((self.url, *path))


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
        from model_store.remote import ObjectStorage  # noqa: PLC0415  (an extra that a local store does not need)
    except ModuleNotFoundError:
        raise ExtraMissing(url) from None
    return Store(ObjectStorage(url))


def is_number(text: str) -> bool:
    """Whether the text is how a version or a generation is written."""
    return text.isascii() and text.isdigit() and not text.startswith("0") and len(text) <= LONGEST_NUMBER


def folder_of(name: str, number: int) -> str:
    """Where a version's files are."""
    return f"{name}/versions/{number}"


def promotion_path(name: str, generation: int) -> str:
    """Where a promotion is."""
    return f"{name}/promotions/{generation}.json"
