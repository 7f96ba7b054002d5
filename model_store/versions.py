"""Versions of models: numbered folders of plain files, published whole and checked whenever they are loaded.

    <name>/versions/3/weights.safetensors … manifest.json    the manifest last: with it the version exists

Creating a version's first file claims its number; whoever loses that race takes the next.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from model_store._ledger import is_number, numbers_in
from model_store._pruning import pruned_versions
from model_store._storage import Storage
from model_store.errors import (
    FileDiffers,
    ManifestInvalid,
    ModelNotFound,
    NoNumberLeft,
    NotOneModel,
    NotPermitted,
    PathMissing,
    PathTaken,
    TooLarge,
    VersionNotFound,
    VersionRefused,
)
from model_store.golden import check_golden
from model_store.manifest import (
    MANIFEST,
    RECIPE,
    REPORT,
    WEIGHTS,
    Description,
    FileEntry,
    Manifest,
    check_name,
    is_name,
)
from model_store.predictor import Predictor, load_weights

MOST_MANIFEST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Version:
    """A version that passed every check of `Versions.load`.

    `report` is its page with the pictures and `recipe` what was decided, as TOML; None for one that has none.
    """

    manifest: Manifest
    digest: str
    predictor: Predictor
    report: bytes | None
    recipe: bytes | None


class Versions:
    """The versions of every model in one storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @property
    def url(self) -> str:
        """How a person names this store."""
        return self._storage.url

    def models(self) -> list[str]:
        """The names of all models, those with a finished version; what may not be read is passed over.

        Raises StorageFailed, also if there are none but something that may not be read.
        """
        names, trouble = self._search()
        if trouble and not names:
            raise trouble
        return names

    def only_model(self) -> str:
        """The name of the store's single model; raises NotOneModel or StorageFailed."""
        names = self.models()
        if len(names) != 1:
            raise NotOneModel(self.url, names)
        return names[0]

    def _search(self) -> tuple[list[str], NotPermitted | None]:
        """The models, and why the first folder that may not be read is passed over."""
        names: list[str] = []
        trouble: NotPermitted | None = None
        for name in filter(is_name, self._storage.list("")):
            try:
                numbers = self._claimed(name)
            except NotPermitted as error:
                trouble = trouble or error
                continue
            if any(self._is_finished(name, number) for number in reversed(numbers)):
                names.append(name)
        return names, trouble

    def versions(self, name: str) -> list[int]:
        """The numbers of a model's finished versions, ascending; raises InvalidName or StorageFailed."""
        return [number for number in self._claimed(check_name(name)) if self._is_finished(name, number)]

    def known_versions(self, name: str) -> list[int]:
        """The numbers of a model's finished versions, ascending, at least one.

        Raises ModelNotFound if there are none, InvalidName or StorageFailed.
        """
        known = self.versions(name)
        if not known:
            raise ModelNotFound(name, self.url, self._search()[0])
        return known

    def _claimed(self, name: str) -> list[int]:
        return numbers_in(self._storage.list(f"{name}/versions"))

    def _is_finished(self, name: str, number: int) -> bool:
        return MANIFEST in self._storage.list(folder_of(name, number))

    def publish(
        self, description: Description, weights: bytes, others: Callable[[int], Mapping[str, bytes]]
    ) -> Manifest:
        """Write a new version and return its manifest. It is not promoted.

        Raises TensorsInvalid or GoldenDiffer, before anything is written, for one that `load` would refuse;
        TooLarge, NoNumberLeft or StorageFailed. `others` makes the remaining files once the version's number
        is known.
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
        self._finish(manifest, files)
        return manifest

    def _claim(self, name: str, weights: bytes) -> int:
        taken = {*self._claimed(name), *pruned_versions(self._storage, name)}
        number = max(taken, default=0) + 1
        while is_number(str(number)):
            try:
                self._storage.create(f"{folder_of(name, number)}/{WEIGHTS}", weights)
            except PathTaken:
                number += 1
            else:
                return number
        raise NoNumberLeft(self._named(name), number - 1)

    def _finish(self, manifest: Manifest, files: Mapping[str, bytes]) -> None:
        """Write what belongs beside the weights, which claimed the number; the manifest last."""
        folder, content = folder_of(manifest.name, manifest.version), manifest.to_json()
        if len(content) > MOST_MANIFEST_BYTES:
            raise TooLarge(self._named(folder, MANIFEST), MOST_MANIFEST_BYTES)
        for file in sorted(files.keys() - {WEIGHTS}):
            self._storage.create(f"{folder}/{file}", files[file])
        self._storage.create(f"{folder}/{MANIFEST}", content)

    def load(self, name: str, number: int) -> Version:
        """Read a version once into memory, check everything about it and return it ready to predict.

        Raises InvalidName, ModelNotFound, VersionNotFound, StorageFailed, or the VersionRefused that says
        what is off.
        """
        manifest, digest = self.read_manifest(name, number)
        folder = folder_of(name, number)
        files = self._read_files(folder, manifest)
        weights = load_weights(manifest, files[WEIGHTS], self._named(folder, WEIGHTS))
        predictor = Predictor(manifest, weights)
        check_golden(predictor, self._named(folder))
        return Version(manifest, digest, predictor, files.get(REPORT), files.get(RECIPE))

    def read_manifest(self, name: str, number: int) -> tuple[Manifest, str]:
        """A version's manifest and its digest, without a look at the other files.

        Raises InvalidName, ModelNotFound, VersionNotFound, StorageFailed or ManifestInvalid.
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
        present, expected = set(self._storage.list(folder)), {MANIFEST, *manifest.files}
        if present != expected:
            raise VersionRefused(
                self._named(folder), f"it holds the files {sorted(present)}, expected {sorted(expected)}"
            )
        return {file: self._read_checked(f"{folder}/{file}", entry) for file, entry in manifest.files.items()}

    def _read_checked(self, path: str, entry: FileEntry) -> bytes:
        try:
            content = self._storage.read(path, entry.size)
        except TooLarge as error:
            raise FileDiffers(self._named(path), f"{error.what}, expected {entry.size}") from None
        if len(content) != entry.size:
            raise FileDiffers(self._named(path), f"{len(content)} bytes, expected {entry.size}")
        if FileEntry.of(content) != entry:
            raise FileDiffers(self._named(path), "its SHA-256 is not the manifest's")
        return content

    def _named(self, *path: str) -> str:
        return "/".join((self.url, *path))


def folder_of(name: str, number: int) -> str:
    """Where a version's files are."""
    return f"{name}/versions/{number}"
