"""Where bytes live, in three verbs: read, create, list. Nothing is ever overwritten.

Pruning alone needs two more: how old a folder is, and remove. A name that begins with a dot is a file on
its way: no part of the store.
"""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from model_store.errors import NotPermitted, PathMissing, PathTaken, StorageFailed, TooLarge

READABLE = stat.S_IRWXU | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH
WITHOUT_LINKS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
NOT_PERMITTED = {errno.EACCES, errno.EPERM, errno.ELOOP}


class Storage(Protocol):
    """What the store needs of a disk or an object store. Paths are relative, with '/' between segments."""

    @property
    def url(self) -> str:
        """How a person names this place."""
        ...

    def read(self, path: str, at_most: int) -> bytes:
        """The whole content; raises PathMissing, StorageFailed, or TooLarge beyond `at_most` bytes."""
        ...

    def create(self, path: str, content: bytes) -> None:
        """Make `path` exist with all of `content`, durably, or raise PathTaken or StorageFailed."""
        ...

    def list(self, folder: str) -> list[str]:
        """The names directly below `folder` ('' is the top), sorted; none if it does not exist.

        Raises StorageFailed.
        """
        ...

    def modified(self, folder: str) -> datetime:
        """When something was last created in `folder`, in UTC; raises PathMissing or StorageFailed."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all that is in it, if it is there; raises StorageFailed."""
        ...


class LocalDisk:
    """A folder on a POSIX file system.

    `create` writes a hidden temporary file beside the path, syncs it, links it to its name (which fails if
    the name is taken) and syncs the folders: after a crash the name holds all of the content or is absent.
    Below the root no symbolic link is followed.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def url(self) -> str:
        """The folder, as it was given."""
        return str(self._root)

    def read(self, path: str, at_most: int) -> bytes:
        """Read a plain file; links, folders and pipes are refused without waiting on them."""
        *folders, name = path.split("/")
        with self._failing(path):
            try:
                with (
                    self._opened(folders) as folder,
                    opened(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, folder) as descriptor,
                ):
                    return self._read_plain(descriptor, path, at_most)
            except FileNotFoundError:
                raise PathMissing(self._named(path)) from None

    def _read_plain(self, descriptor: int, path: str, at_most: int) -> bytes:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StorageFailed(self._named(path), "not a plain file")
        if status.st_size > at_most:
            raise TooLarge(self._named(path), at_most)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(status.st_size + 1)

    def create(self, path: str, content: bytes) -> None:
        """Write, sync, link, sync."""
        *folders, name = path.split("/")
        temporary = f".{name}.{secrets.token_hex(8)}"
        with self._failing(path):
            make_folders(self._root)
            with self._opened(folders, make=True) as folder:
                try:
                    write_synced(temporary, content, folder)
                    os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
                except FileExistsError:
                    # Who made it may have been killed before this.
                    os.fsync(folder)
                    raise PathTaken(self._named(path)) from None
                finally:
                    unlink(temporary, folder)
                os.fsync(folder)

    def list(self, folder: str) -> list[str]:
        """Names below a folder; a file has none, and a link is refused."""
        segments = folder.split("/") if folder else []
        with self._failing(folder):
            try:
                with self._opened(segments) as descriptor:
                    names = os.listdir(descriptor)
            except FileNotFoundError:
                return []
            except NotADirectoryError:
                if self._root.is_dir():
                    return []
                raise
        return sorted(name for name in names if not name.startswith("."))

    def modified(self, folder: str) -> datetime:
        """The folder's own time, which changes with each name in it."""
        with self._failing(folder):
            try:
                with self._opened(folder.split("/")) as descriptor:
                    return datetime.fromtimestamp(os.fstat(descriptor).st_mtime, UTC)
            except FileNotFoundError:
                raise PathMissing(self._named(folder)) from None

    def remove(self, path: str) -> None:
        """Unlink a file or a whole folder and sync the folder it was in."""
        *folders, name = path.split("/")
        with self._failing(path):
            try:
                with self._opened(folders) as folder:
                    if name in os.listdir(folder) and is_kind(stat.S_ISDIR, name, folder):
                        shutil.rmtree(name, dir_fd=folder)
                    else:
                        unlink(name, folder)
                    os.fsync(folder)
            except FileNotFoundError:
                return

    @contextmanager
    def _opened(self, folders: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """A descriptor of the last of nested folders; `make` creates them and syncs the ones they are in."""
        with ExitStack() as stack:
            folder = stack.enter_context(opened(self._root, os.O_RDONLY | os.O_DIRECTORY))
            for name in folders:
                if make:
                    make_folder(name, folder)
                    os.fsync(folder)
                folder = stack.enter_context(opened(name, WITHOUT_LINKS, folder))
            yield folder

    @contextmanager
    def _failing(self, path: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            failed = NotPermitted if error.errno in NOT_PERMITTED else StorageFailed
            raise failed(self._named(path), reason_of(error)) from None

    def _named(self, path: str) -> str:
        return str(self._root / path)


@contextmanager
def opened(path: str | Path, flags: int, folder: int | None = None) -> Iterator[int]:
    """A descriptor of `path` in `folder`, closed in the end; a symbolic link raises OSError ELOOP."""
    try:
        descriptor = os.open(path, flags, dir_fd=folder)
    except NotADirectoryError:
        if flags & os.O_NOFOLLOW and is_kind(stat.S_ISLNK, path, folder):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        raise
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def make_folders(folder: Path) -> None:
    """Create `folder` and its missing parents, for everybody to read, syncing the parent of each."""
    if not folder.is_dir():
        make_folders(folder.parent)
        with opened(folder.parent, os.O_RDONLY | os.O_DIRECTORY) as parent:
            make_folder(folder.name, parent)
    # Whoever made it may have been killed before this; a parent that may not be read cannot be synced.
    with suppress(PermissionError), opened(folder.parent, os.O_RDONLY | os.O_DIRECTORY) as parent:
        os.fsync(parent)


def make_folder(name: str, parent: int) -> None:
    """Create a folder that everybody can read, whatever the umask, unless the name is taken."""
    try:
        os.mkdir(name, dir_fd=parent)
    except FileExistsError:
        return
    os.chmod(name, READABLE, dir_fd=parent)


def write_synced(name: str, content: bytes, folder: int) -> None:
    """Write a new file that everybody may read and nobody should write, and sync it."""
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o444, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o444)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def unlink(name: str, folder: int) -> None:
    """Remove a file, if it is there."""
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return


def is_kind(kind: Callable[[int], bool], name: str | Path, folder: int | None) -> bool:
    """Whether a name in a folder is of a kind, without following a link."""
    return kind(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)


def reason_of(error: OSError) -> str:
    """The operating system's own words for what went wrong, or plainer ones."""
    if error.errno == errno.ELOOP:
        return "a symbolic link, and links are not followed"
    return error.strerror or type(error).__name__
