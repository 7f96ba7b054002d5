"""Where bytes live, in three verbs: read, create, list. Nothing is ever overwritten."""

import os
import secrets
import stat
from pathlib import Path
from typing import Protocol

from model_store.errors import PathMissing, PathTaken, StorageFailed


class Storage(Protocol):
    """What the store needs of a disk or an object store. Paths are relative, with '/' between segments."""

    @property
    def url(self) -> str:
        """How a person names this place."""
        ...

    def read(self, path: str) -> bytes:
        """The whole content; raises PathMissing or StorageFailed."""
        ...

    def create(self, path: str, content: bytes) -> None:
        """Make `path` exist with all of `content`, durably, or raise PathTaken or StorageFailed."""
        ...

    def list(self, prefix: str) -> list[str]:
        """The names directly below the folder `prefix` ('' is the top), sorted; none if it does not exist."""
        ...


class LocalDisk:
    """A folder on a POSIX file system.

    `create` writes a hidden temporary file beside the path, syncs it, links it to its name (which fails if
    the name is taken) and syncs the folder: after a crash the name holds all of the content or is absent.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def url(self) -> str:
        """The folder, as it was given."""
        return str(self._root)

    def read(self, path: str) -> bytes:
        """Read a plain file; links, folders and pipes are refused without waiting on them."""
        try:
            descriptor = os.open(self._root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            raise PathMissing(self._named(path)) from None
        except OSError as error:
            raise StorageFailed(self._named(path), describe(error)) from None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise StorageFailed(self._named(path), "not a plain file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read()
        except OSError as error:
            raise StorageFailed(self._named(path), describe(error)) from None
        finally:
            os.close(descriptor)

    def create(self, path: str, content: bytes) -> None:
        """Write, sync, link, sync."""
        final = self._root / path
        temporary = final.with_name(f".{final.name}.{secrets.token_hex(8)}")
        try:
            make_folders(final.parent)
            try:
                write_synced(temporary, content)
                link_new(temporary, final)
            finally:
                temporary.unlink(missing_ok=True)
            sync_folder(final.parent)
        except OSError as error:
            raise StorageFailed(self._named(path), describe(error)) from None

    def list(self, prefix: str) -> list[str]:
        """Names below a folder, without the temporary ones."""
        try:
            names = os.listdir(self._root / prefix)
        except FileNotFoundError:
            return []
        except OSError as error:
            if isinstance(error, NotADirectoryError) and self._root.is_dir():
                return []
            raise StorageFailed(self._named(prefix), describe(error)) from None
        return sorted(name for name in names if not name.startswith("."))

    def _named(self, path: str) -> str:
        return str(self._root / path)


def make_folders(folder: Path) -> None:
    """Create `folder` and its missing parents, syncing the parent of each that is made."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file that anybody may read and nobody should write, and sync it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def link_new(existing: Path, name: Path) -> None:
    """Give a file another name; raises PathTaken if something has it."""
    try:
        os.link(existing, name)
    except FileExistsError:
        raise PathTaken(str(name)) from None


def sync_folder(folder: Path) -> None:
    """Make a folder's new names durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe(error: OSError) -> str:
    """The operating system's own words for what went wrong."""
    return error.strerror or type(error).__name__
