"""A table's bytes: opened once, from a file, a pipe or a folder, unpacked, and known by their SHA-256."""

import gzip
import hashlib
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

from model_store.sniffing import GZIP, PREFIX_BYTES, ZIP, ZSTD, Foreign, recognised
from training.data import DataError

STANDARD_INPUT = Path("-")
WORKBOOK = "xl/workbook.xml"


@dataclass(frozen=True)
class Source:
    """An open table: where it is from, its bytes, and the SHA-256 of what is there, packed or not.

    `file` can be read again from its start; a folder has none.
    """

    path: Path
    file: IO[bytes] | None
    sha256: str

    @property
    def name(self) -> str:
        """What it is called in sentences."""
        return "the standard input" if self.path == STANDARD_INPUT else str(self.path)


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open a file, a pipe, `-` for the standard input, or a folder of Parquet files.

    Raises DataError if it cannot be read, and at the end if its bytes are no longer those that were there.
    """
    if path.is_dir():
        source = Source(path, None, folder_sha256(path))
        yield source
        digest = folder_sha256(path)
    else:
        with open_file(path) as file:
            source = Source(path, file, file_sha256(file))
            yield source
            digest = file_sha256(file)
    if digest != source.sha256:
        message = f"{source.name} changed while it was read: wait until it is written, then read it again"
        raise DataError(message)


@contextmanager
def open_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that can be read again; what comes through a pipe is kept in a temporary one."""
    with sys.stdin.buffer if path == STANDARD_INPUT else path.open("rb") as file:
        if file.seekable():
            yield file
        else:
            with spooled(file) as copy:
                yield copy


def spooled(file: Any) -> IO[bytes]:
    """The bytes of a file in a temporary one, to be read from their start."""
    with ExitStack() as undo:
        copy = undo.enter_context(tempfile.TemporaryFile(prefix="plumbline-"))
        shutil.copyfileobj(file, copy, 2**20)
        copy.seek(0)
        undo.pop_all()
    return copy


def file_sha256(file: IO[bytes]) -> str:
    """The SHA-256 of a file's bytes; leaves it at its start."""
    file.seek(0)
    digest = hashlib.sha256()
    for content in iter(partial(file.read, 2**20), b""):
        digest.update(content)
    file.seek(0)
    return digest.hexdigest()


def folder_sha256(folder: Path) -> str:
    """The SHA-256 of the digests of a folder's Parquet files, in the order of their names."""
    digests = []
    for path in sorted(folder.rglob("*.parquet")):
        with path.open("rb") as file:
            digests.append(file_sha256(file))
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def start_of(file: IO[bytes]) -> bytes:
    """The first bytes of a file; leaves it at its start."""
    start = file.read(PREFIX_BYTES)
    file.seek(0)
    return start


@contextmanager
def unpacked(file: IO[bytes], name: str) -> Iterator[tuple[IO[bytes], Foreign | None]]:
    """What is in a file that may be compressed, and what it looks like; an Excel file stays as it is.

    Raises DataError for one that is damaged, encrypted or holds several files.
    """
    kind = recognised(start_of(file))
    if kind not in {GZIP, ZIP, ZSTD} or (kind is ZIP and is_workbook(file)):
        yield file, kind
        return
    try:
        inner = spooled(unpacker(file, kind, name))
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        message = f"{name} looks like {kind.name}, but it cannot be unpacked: {error}"
        raise DataError(message) from None
    with inner:
        yield inner, recognised(start_of(inner))


def unpacker(file: IO[bytes], kind: Foreign, name: str) -> Any:
    """What reads the bytes in a compressed file; raises DataError where none can."""
    if kind is GZIP:
        return gzip.open(file)
    if kind is ZIP:
        return zip_member(zipfile.ZipFile(file), name)
    return zstd_reader(file, name)


def is_workbook(file: IO[bytes]) -> bool:
    """Whether a zip archive is an Excel file."""
    try:
        names = zipfile.ZipFile(file).namelist()
    except zipfile.BadZipFile:
        names = []
    file.seek(0)
    return WORKBOOK in names


def zip_member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """The one file in a zip archive; raises DataError if there are others, or if it is encrypted."""
    known = {"word/document.xml": "a Word document", "content.xml": "an OpenDocument file"}
    for member, what in known.items():
        if member in archive.namelist():
            message = f"{name} looks like {what}, which is not read here: save the table as .xlsx or CSV"
            raise DataError(message)
    members = (each for each in archive.infolist() if not each.is_dir())
    files = [each for each in members if not each.filename.startswith("__MACOSX/")]
    if len(files) != 1:
        some = ", ".join(each.filename for each in files[:5]) or "none"
        message = f"{name} is a zip archive of {len(files)} files ({some}): unpack it and name one of them"
        raise DataError(message)
    if files[0].flag_bits & 1:
        message = f"{name} is an encrypted zip archive: unpack it with its password first"
        raise DataError(message)
    return archive.open(files[0])


def zstd_reader(file: IO[bytes], name: str) -> Any:
    """What reads the bytes in a file compressed with zstd; raises OSError at an end that comes too soon."""
    try:
        import pyarrow  # noqa: PLC0415  (an extra that most tables do not need)
    except ImportError:
        raise needs_extra(name, "zstd", "parquet") from None
    return pyarrow.input_stream(spooled(file), compression="zstd")  # a copy, since it closes what it reads


def needs_extra(name: str, what: str, extra: str) -> DataError:
    """What is raised where a package is missing."""
    return DataError(f"{name}: {what} needs an extra: pip install 'plumbline[{extra}]'")
