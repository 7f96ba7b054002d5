"""Which version is live: follows the store's promotions and keeps the last good version whatever happens."""

from http import HTTPStatus
from threading import Event, Lock, Thread

from app.logs import logger
from app.refusals import Refused
from app.serving import Served
from app.settings import Settings
from app.telemetry import FAILURES, LOADS, Telemetry
from model_store.errors import ModelNotFound, StorageFailed, StoreError, VersionRefused
from model_store.store import Store

RETRY_AFTER = "5"
PATIENCE = 5.0


class Live:
    """The version that is served, and what keeps a newer one from it."""

    def __init__(self, store: Store, telemetry: Telemetry, settings: Settings) -> None:
        self.store, self.telemetry = store, telemetry
        self._settings = settings
        self._woken, self._looking = Event(), Lock()
        self.served: Served | None = None
        self.trouble: str | None = None
        self._last_error = ""

    def current(self) -> Served:
        """The version that answers now; raises Refused (503) before there is one."""
        if self.served is None:
            detail = "No verified version is loaded yet; /readyz says why."
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": RETRY_AFTER})
        return self.served

    def start(self) -> None:
        """Look, and wait for it as long as a start may take; a slow store goes on being looked at."""
        first = Thread(target=self.look, daemon=True)
        first.start()
        first.join(PATIENCE)

    def look(self) -> None:
        """Ask the store which version to serve, verify it beside the live one, and swap them in one go.

        Blocks on the store and on verifying: call it in a thread. Anything wrong changes nothing but
        `trouble`, the metrics and the log.
        """
        with self._looking:
            self._look()

    def _look(self) -> None:
        try:
            fresh = None if self._is_current() else self.load()
        except StoreError as error:
            self._fail(error)
            return
        except Exception as error:
            logger.exception("a defect of this service, while it looked for a new version")
            self._fail(error)
            return
        self.telemetry.is_store_reachable = True
        self.trouble, self._last_error = None, ""
        if fresh is not None:
            self.served = fresh
            self.telemetry.served = (fresh.name, fresh.version, fresh.digest)
            self.telemetry.count(LOADS)
            logger.info("serving", model=fresh.name, version=fresh.version, digest=fresh.digest)

    def load(self) -> Served:
        """Load and verify the version that is to be served; raises StoreError."""
        settings = self._settings
        name = settings.name or (self.served.name if self.served else self.store.only_model())
        if settings.version is None:
            return Served(self.store.load_promoted(name), settings.max_rows)
        return Served(self.store.load(name, settings.version), settings.max_rows)

    def _is_current(self) -> bool:
        """Whether the live version is the one that is to be served; raises StoreError."""
        if self.served is None:
            return False
        if self._settings.version is None:
            digest = self.store.promoted(self.served.name).digest
        else:
            digest = self.store.read_manifest(self.served.name, self._settings.version)[1]
        return self.served.digest == digest

    def _fail(self, error: Exception) -> None:
        refused = isinstance(error, VersionRefused)
        # Nothing in a store goes away, so a model that is served and is not there means no store is.
        gone = isinstance(error, StorageFailed) or (self.served and isinstance(error, ModelNotFound))
        self.telemetry.is_store_reachable = not gone
        self.telemetry.count(FAILURES)
        self.trouble = f"{'a version is refused' if refused else 'the store'}: {type(error).__name__}"
        if str(error) != self._last_error:
            self._last_error = str(error)
            kept = f"version {self.served.version} stays" if self.served else "nothing is served yet"
            logger.warning("looking for a version failed", error=str(error), so=kept)

    def wake(self) -> None:
        """Look at once instead of at the next interval."""
        self._woken.set()

    def follow(self) -> None:
        """Look now and then, and whenever woken, in a thread that ends with the process."""
        Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        while True:
            self._woken.wait(self._settings.refresh_seconds)
            self._woken.clear()
            self.look()
