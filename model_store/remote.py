"""Storage in an object store, through obstore: `s3://bucket/…`, `gs://bucket/…`, `az://container/…`, `memory://`.

Credentials, regions and endpoints come from the environment, by the names each cloud's own tools use.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from model_store.errors import PathMissing, PathTaken, StorageFailed, TooLarge

MOST_RETRIES, RETRY_TIMEOUT = 3, timedelta(seconds=20)


class ObjectStorage:
    """A bucket, or a part of one. Objects appear whole; `create` is a conditional put (If-None-Match: *).

    Raises StorageFailed for a URL or variables that name none.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        with self._failing(""):
            self._objects = from_url(
                url, retry_config={"max_retries": MOST_RETRIES, "retry_timeout": RETRY_TIMEOUT}
            )

    def read(self, path: str, at_most: int) -> bytes:
        """Get an object, unless its size is over `at_most` bytes."""
        with self._failing(path):
            found = obstore.get(self._objects, path)
            if found.meta["size"] > at_most:
                raise TooLarge(self._named(path), at_most)
            return bytes(found.bytes())

    def create(self, path: str, content: bytes) -> None:
        """Put an object that must not exist."""
        with self._failing(path):
            try:
                obstore.put(self._objects, path, content, mode="create", use_multipart=False)
            except FileNotFoundError:
                raise StorageFailed(self._named(path), "there is no such bucket") from None

    def list(self, folder: str) -> list[str]:
        """The last segments of the objects and common prefixes below a prefix.

        An empty object that stands for the folder itself, as consoles of clouds make them, is not below it.
        """
        with self._failing(folder):
            found = obstore.list_with_delimiter(self._objects, folder or None)
        paths = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
        names = {path.rpartition("/")[2] for path in paths if path != folder}
        return sorted(name for name in names if not name.startswith("."))

    def modified(self, folder: str) -> datetime:
        """When the youngest object below a prefix was put."""
        with self._failing(folder):
            times = [
                entry["last_modified"] for chunk in obstore.list(self._objects, folder) for entry in chunk
            ]
        if not times:
            raise PathMissing(self._named(folder))
        return max(times)

    def remove(self, path: str) -> None:
        """Delete an object and all those below it as a prefix."""
        with self._failing(path):
            below = [entry["path"] for chunk in obstore.list(self._objects, path) for entry in chunk]
            for each in (*below, path):
                with suppress(FileNotFoundError):
                    obstore.delete(self._objects, each)

    @contextmanager
    def _failing(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise PathMissing(self._named(path)) from None
        except AlreadyExistsError:
            raise PathTaken(self._named(path)) from None
        except (BaseError, OSError, ValueError) as error:
            raise StorageFailed(self._named(path), reason_of(error)) from None

    def _named(self, path: str) -> str:
        return f"{self.url}{'' if self.url.endswith('/') else '/'}{path}"


def reason_of(error: Exception) -> str:
    """What went wrong in a line: the cloud's code and message, or else the library's words."""
    text = str(error)
    told = re.findall("<(?:Code|Message)>([^<]*)<", text)
    return ": ".join(told) or text.partition("\n")[0]
