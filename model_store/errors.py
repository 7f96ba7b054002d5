"""Every way the store can refuse, each with its own sentence. None of them knows HTTP.

StoreError
├── InvalidName             a name that cannot be a folder and a URL segment
├── PathTaken               `create` met a path that exists
├── PathMissing             `read` met a path that does not exist
├── StoreUrlInvalid         a URL of a kind that no storage serves
├── ExtraMissing            a store in the cloud, and the package that reaches it is not installed
├── StorageFailed           the disk or the cloud refused: full, read-only, not permitted, not a plain file
│   ├── NotPermitted        what this process may not read or write, or a link, which is not followed
│   └── TooLarge            a file longer than any that the store writes there
├── ModelNotFound           no version of that name
├── NotOneModel             no name was given, and the store holds none or several
├── VersionNotFound         no such version number
├── NothingPromoted         there are versions, none is promoted
├── NothingToRollBackTo     the promoted version is the first ever promoted
├── VersionInUse            a version that must not be pruned: promoted, or promoted before
├── VersionPruned           a version that was pruned while it was being promoted
├── NoNumberLeft            the highest number that a version can have is taken
├── EntryInvalid            a ledger's document that is not what was written, or a gap before it
│   └── PromotionInvalid    a promotion; once it is removed, the one before it holds
└── VersionRefused          a version that is not what was published
    ├── FileDiffers         a file's size or SHA-256 is not the manifest's
    ├── ManifestInvalid     the manifest is not one, or contradicts itself
    ├── TensorsInvalid      tensors of other names, shapes or types than the network's, or not finite
    └── GoldenDiffer        the recomputed predictions or bounds are not those of training
"""

from typing import Any


class StoreError(Exception):
    """Anything the store refuses; its text is a sentence for the person who asked."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the sentence and not what it was made of, which `__init__` would ask for."""
        return with_sentence, (type(self), self.args), self.__dict__


def with_sentence(kind: type[StoreError], arguments: tuple[str, ...]) -> StoreError:
    """An error of that kind with its sentence, made without `__init__`."""
    return kind.__new__(kind, *arguments)


class InvalidName(StoreError):
    """A model's name that cannot be a folder and a URL segment."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name[:80]!r} cannot name a model: use 1 to 63 lower-case letters, digits, '.', '_' or '-', "
            "starting with a letter or a digit"
        )


class PathTaken(StoreError):
    """`create` met a path that exists: nothing is ever overwritten."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} exists already and is never overwritten")


class PathMissing(StoreError):
    """`read` met a path that does not exist."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} does not exist")


class StorageFailed(StoreError):
    """The operating system refused to read or write."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")


class NotPermitted(StorageFailed):
    """This process may not read or write there, or a link leads there, and links are not followed."""


class TooLarge(StorageFailed):
    """A file is longer than any that the store writes there."""

    def __init__(self, path: str, at_most: int) -> None:
        self.what = f"more than {at_most} bytes"
        super().__init__(path, self.what)


class StoreUrlInvalid(StoreError):
    """No storage serves URLs of that kind."""

    def __init__(self, url: str) -> None:
        super().__init__(f"{url} is no store: give a folder's path, s3://…, gs://…, az://… or memory://")


class ExtraMissing(StoreError):
    """A store in the cloud needs an extra that is not installed."""

    def __init__(self, url: str) -> None:
        super().__init__(f"the store {url} needs the extra 'remote': pip install 'plumbline[remote]'")


class ModelNotFound(StoreError):
    """The store has no version of that name."""

    def __init__(self, name: str, store: str, known: list[str]) -> None:
        others = f"; it has {', '.join(known[:10])}" if known else "; it is empty"
        super().__init__(
            f"no model named {name} in the store {store}{others}. Train one with: python -m training fit …"
        )


class NotOneModel(StoreError):
    """No name was given, and the store does not hold exactly one model."""

    def __init__(self, store: str, known: list[str]) -> None:
        holds = f"holds {', '.join(known[:10])}: name one" if known else "is empty: train a model first"
        super().__init__(f"the store {store} {holds}")


class VersionNotFound(StoreError):
    """The model has no such version."""

    def __init__(self, name: str, version: int, known: list[int]) -> None:
        listed = ", ".join(map(str, known[-10:])) or "none"
        super().__init__(f"{name} has no version {version}; it has {listed}")


class NothingPromoted(StoreError):
    """No version of the model has been promoted."""

    def __init__(self, name: str, store: str, known: list[int]) -> None:
        super().__init__(
            f"no version of {name} is promoted in the store {store}. "
            f"Promote one with: python -m model_store promote {name} {known[-1]} --store {store}"
        )


class NothingToRollBackTo(StoreError):
    """The promoted version is the first that ever was."""

    def __init__(self, name: str, version: int) -> None:
        super().__init__(
            f"{name} has nothing to roll back to: version {version} is the only one ever promoted"
        )


class VersionInUse(StoreError):
    """Neither the promoted version nor the one before it is ever pruned."""

    def __init__(self, name: str, version: int) -> None:
        super().__init__(f"version {version} of {name} is promoted, or was before: it is not pruned")


class VersionPruned(StoreError):
    """A version that was pruned at the moment it was promoted; the one before is promoted again."""

    def __init__(self, name: str, version: int) -> None:
        super().__init__(f"version {version} of {name} was pruned while it was being promoted")


class NoNumberLeft(StoreError):
    """The highest number that a version can have is taken."""

    def __init__(self, path: str, highest: int) -> None:
        super().__init__(
            f"{path} has no number left for a new version: {highest}, the highest there can be, is taken. "
            "Remove what is called so, and numbers go on from the ones before it"
        )


class EntryInvalid(StoreError):
    """A ledger's document is not what was written, or does not follow on the one before it."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path} is refused: {what}")


class PromotionInvalid(EntryInvalid):
    """A promotion is not what was written; the file before it says what to go back to."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(path, f"{what}. Once it is removed, the promotion before it holds")


class VersionRefused(StoreError):
    """A version that is not what was published; `what` says how, the path says where."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(f"{path} is refused: {what}")


class FileDiffers(VersionRefused):
    """A file's size or SHA-256 is not the one its manifest gives."""


class ManifestInvalid(VersionRefused):
    """The manifest does not parse, has fields it should not, or contradicts itself."""


class TensorsInvalid(VersionRefused):
    """Tensors of other names, shapes or types than the network's, or not finite."""


class GoldenDiffer(VersionRefused):
    """The predictions or bounds recomputed from raw rows are not the ones made in training."""
