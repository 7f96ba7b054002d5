import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, Request, Route, sync_playwright

from tests.toys import AGE, FUEL, POWER

QUIET = (
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
ROW = {AGE.name: AGE.example, POWER.name: POWER.example, FUEL.name: FUEL.example}


@dataclass
class Visit:
    """The docs page of a service in a browser, and what went wrong on it."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    posted: list[Request] = field(default_factory=list)

    def open(self) -> None:
        self.page.on("console", lambda message: self.complain(message.type, message.text))
        self.page.on("pageerror", lambda error: self.complain("error", str(error)))
        self.page.on("request", self.note)
        self.page.route("**/*", self.keep_inside)
        self.page.goto(f"{self.url}/docs")
        self.page.locator(".opblock").first.wait_for()

    def complain(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(text)

    def note(self, request: Request) -> None:
        if request.method == "POST":
            self.posted.append(request)

    def keep_inside(self, route: Route) -> None:
        """Let nothing out but what goes to the service."""
        if route.request.url.startswith(f"{self.url}/"):
            route.continue_()
        else:
            self.complaints.append(f"asked for {route.request.url}")
            route.abort()

    def operation(self, name: str) -> Locator:
        return self.page.locator(f"[id='operations-default-{name}']")

    def try_out(self, name: str) -> tuple[str, str]:
        """Open an operation, try it out as it is filled in; give the shown status code and body."""
        block = self.operation(name)
        block.locator(".opblock-summary-control").click()
        block.get_by_role("button", name="Try it out").click()
        block.get_by_role("button", name="Execute").click()
        answer = block.locator(".live-responses-table .response")
        answer.wait_for()
        status = answer.locator(".response-col_status").inner_text()
        return status.strip(), answer.locator(".highlight-code code").first.inner_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("there is no chromium here: install Debian's package to test the docs page")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Browser, mixed_service: str) -> Iterator[Visit]:
    with browser.new_context(base_url=mixed_service) as context:
        context.set_default_timeout(10_000)
        visit = Visit(context.new_page(), mixed_service)
        visit.open()
        yield visit


def test_the_docs_page_shows_every_operation_without_the_internet(visit: Visit) -> None:
    document = httpx.get(f"{visit.url}/openapi.json").json()
    shown = visit.page.locator(".opblock-summary-path").all_inner_texts()
    assert [path.replace("\u200b", "") for path in shown] == list(document["paths"])
    assert visit.page.title() == "toy"
    assert "Predicts price from age" in visit.page.locator(".info").inner_text()
    assert visit.complaints == []


@pytest.mark.parametrize(
    ("operation", "path", "body"),
    [("predict", "/predict", ROW), ("predict_batch", "/predict/batch", {"instances": [ROW]})],
)
def test_try_it_out_is_answered_at_the_first_click(
    visit: Visit, operation: str, path: str, body: object
) -> None:
    status, shown = visit.try_out(operation)
    (request,) = visit.posted
    assert request.url == visit.url + path
    assert json.loads(request.post_data or "") == body
    assert status == "200"
    assert json.loads(shown) == httpx.post(visit.url + path, json=body).json()
    assert visit.complaints == []


def test_the_page_tells_units_and_ranges(visit: Visit) -> None:
    block = visit.operation("predict")
    block.locator(".opblock-summary-control").click()
    body = block.locator(".opblock-section-request-body")
    body.get_by_role("tab", name="Schema").click()
    body.get_by_role("button", name="Expand all").first.click()
    assert "In training 0.5 to 10 years." in body.inner_text()
    assert visit.complaints == []


def test_the_first_models_page_is_answered_at_the_first_click(browser: Browser, first_service: str) -> None:
    with browser.new_context() as context:
        context.set_default_timeout(10_000)
        visit = Visit(context.new_page(), first_service)
        visit.open()
        status, shown = visit.try_out("predict")
    assert status == "200"
    assert json.loads(visit.posted[0].post_data or "").keys() == {"Kilometers_Driven"}
    assert json.loads(shown)["model"] == "used-car-price"
    assert visit.complaints == []
