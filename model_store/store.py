"""The store: append-only versions and promotions of models, the same on every storage.

    <name>/versions/3/weights.safetensors … manifest.json    the manifest last: with it the version exists
    <name>/promotions/7.json                                 the highest generation says what is promoted

Creating a version's first file claims its number; whoever loses that race takes the next. Nothing is
overwritten or ordered by time, so a crash at any instant leaves the old state or the new one.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, PositiveInt, ValidationError

from model_store.errors import (
    FileDiffers,
    ManifestInvalid,
    ModelNotFound,
    NothingPromoted,
    NothingToRollBackTo,
    NotOneModel,
    PathMissing,
    PathTaken,
    VersionNotFound,
    VersionRefused,
)
from model_store.manifest import (
    MANIFEST,
    WEIGHTS,
    Description,
    FileEntry,
    Manifest,
    Part,
    Sha256,
    check_name,
    is_name,
)
from model_store.predictor import Predictor, check_golden, load_weights
from model_store.storage import LocalDisk, Storage


class Promotion(Part):
    """One line of a model's history: which version became the promoted one, when and why."""

    generation: PositiveInt
    version: PositiveInt
    digest: Sha256
    previous: PositiveInt | None
    promoted_at: AwareDatetime
    reason: str | None


@dataclass(frozen=True)
class Version:
    """A version that passed every check of `Store.load`."""

    manifest: Manifest
    digest: str
    predictor: Predictor


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
        return [name for name in self._storage.list("") if is_name(name) and self.versions(name)]

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
            if MANIFEST in self._storage.list(folder_of(name, number))
        ]

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
        for file in files.keys() - {WEIGHTS}:
            self._storage.create(f"{folder}/{file}", files[file])
        self._storage.create(f"{folder}/{MANIFEST}", manifest.to_json())
        return manifest

    def _claim(self, name: str, weights: bytes) -> int:
        number = max(self._numbers(f"{name}/versions"), default=0) + 1
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
        return Version(manifest, digest, predictor)

    def read_manifest(self, name: str, number: int) -> tuple[Manifest, str]:
        """A version's manifest and its digest, without a look at the other files.

        Raises ModelNotFound, VersionNotFound, StorageFailed or ManifestInvalid.
        """
        folder = folder_of(check_name(name), number)
        try:
            content = self._storage.read(f"{folder}/{MANIFEST}")
        except PathMissing:
            raise VersionNotFound(name, number, self._known_versions(name)) from None
        manifest = Manifest.from_json(content, self._named(folder, MANIFEST))
        if (manifest.name, manifest.version) != (name, number):
            raise ManifestInvalid(
                self._named(folder, MANIFEST), f"it is version {manifest.version} of {manifest.name}"
            )
        return manifest, hashlib.sha256(content).hexdigest()

    def _read_files(self, folder: str, manifest: Manifest) -> dict[str, bytes]:
        present, due = set(self._storage.list(folder)), {MANIFEST, *manifest.files}
        if present != due:
            raise VersionRefused(
                self._named(folder), f"it holds the files {sorted(present)} where {sorted(due)} are due"
            )
        files: dict[str, bytes] = {}
        for file, entry in manifest.files.items():
            files[file] = content = self._storage.read(f"{folder}/{file}")
            if len(content) != entry.size:
                raise FileDiffers(self._named(folder, file), f"{len(content)} bytes, {entry.size} are due")
            if FileEntry.of(content) != entry:
                raise FileDiffers(self._named(folder, file), "its SHA-256 is not the manifest's")
        return files

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
            raise NothingPromoted(name, self.url, self._known_versions(name))
        return promotion

    def promote(self, name: str, number: int, reason: str | None = None) -> Promotion:
        """Verify a version and make it the promoted one; one that is promoted already stays so."""
        version = self.load(name, number)
        while True:
            current = self._latest_promotion(name)
            if current and current.version == number:
                self._check_promoted(name, version, current)
                return current
            promotion = Promotion(
                generation=current.generation + 1 if current else 1,
                version=number,
                digest=version.digest,
                previous=current.version if current else None,
                promoted_at=datetime.now(UTC),
                reason=reason,
            )
            try:
                content = promotion.model_dump_json(indent=2).encode() + b"\n"
                self._storage.create(promotion_path(name, promotion.generation), content)
            except PathTaken:
                continue
            return promotion

    def rollback(self, name: str, reason: str | None = None) -> Promotion:
        """Promote the version that was promoted before the present one."""
        current = self.promoted(name)
        if current.previous is None:
            raise NothingToRollBackTo(name, current.version)
        return self.promote(name, current.previous, reason)

    def _known_versions(self, name: str) -> list[int]:
        known = self.versions(name)
        if not known:
            raise ModelNotFound(name, self.url, self.models())
        return known

    def _latest_promotion(self, name: str) -> Promotion | None:
        generation = max(self._numbers(f"{check_name(name)}/promotions", suffix=".json"), default=0)
        if not generation:
            return None
        path = promotion_path(name, generation)
        try:
            promotion = Promotion.model_validate_json(self._storage.read(path))
        except ValidationError as error:
            raise ManifestInvalid(self._named(path), error.errors()[0]["msg"]) from None
        if promotion.generation != generation:
            raise ManifestInvalid(self._named(path), f"it says it is generation {promotion.generation}")
        return promotion

    def _numbers(self, folder: str, suffix: str = "") -> list[int]:
        names = self._storage.list(folder)
        return sorted(
            int(name.removesuffix(suffix))
            for name in names
            if re.fullmatch(rf"[1-9][0-9]{{0,9}}{re.escape(suffix)}", name)
        )

    def _named(self, *path: str) -> str:
        return "/".join((self.url, *path))


def open_store(url: str) -> Store:
    """Open the store at `url`, a folder; it need not exist yet."""
    return Store(LocalDisk(Path(url)))


def folder_of(name: str, number: int) -> str:
    """Where a version's files are."""
    return f"{name}/versions/{number}"


def promotion_path(name: str, generation: int) -> str:
    """Where a promotion is."""
    return f"{name}/promotions/{generation}.json"
