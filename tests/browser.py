"""A real headless browser without the internet, and what went wrong on the page it shows."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from playwright.sync_api import Browser, Page, Request, Route, sync_playwright

QUIET = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        yield browser
        browser.close()


@dataclass
class Visit:
    """A page of a service, what it posted, and what it complained of or asked of others."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    posted: list[Request] = field(default_factory=list)

    def open(self, path: str) -> None:
        """Go there and wait until everything is loaded."""
        self.page.on("console", lambda message: self.complain(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complain("error", str(error)))
        self.page.on("request", self.note)
        self.page.route("**/*", self.keep_inside)
        self.page.goto(f"{self.url}{path}")

    def complain(self, kind: str, text: str) -> None:
        """Keep what the browser's console says is wrong."""
        if kind in {"error", "warning"}:
            self.complaints.append(text)

    def note(self, request: Request) -> None:
        """Keep what was posted."""
        if request.method == "POST":
            self.posted.append(request)

    def keep_inside(self, route: Route) -> None:
        """Let nothing out but what goes to the service."""
        if route.request.url.startswith(f"{self.url}/"):
            route.continue_()
        else:
            self.complaints.append(f"asked for {route.request.url}")
            route.abort()


@contextmanager
def visiting(browser: Browser, url: str, path: str, *, width: int = 1280) -> Iterator[Visit]:
    """A visit to the path of a service, with nothing remembered from others."""
    with browser.new_context(viewport={"width": width, "height": 900}, locale="en-GB") as context:
        context.set_default_timeout(20_000)
        visit = Visit(context.new_page(), url)
        visit.open(path)
        yield visit
