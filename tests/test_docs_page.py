import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Locator

from model_store.store import Store
from tests.browser import Visit, visiting
from tests.conftest import serving
from tests.toys import AGE, FUEL, POWER, publish_toy

ROW = {AGE.name: AGE.example, POWER.name: POWER.example, FUEL.name: FUEL.example}
KEY = "a+long/key=="


@pytest.fixture
def visit(browser: Browser, mixed_service: str) -> Iterator[Visit]:
    with visiting(browser, mixed_service, "/docs") as visit:
        yield visit


@pytest.fixture
def keyed_service(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a service of the toy that asks for a key."""
    monkeypatch.setenv("PLUMBLINE_API_KEYS", hashlib.sha256(KEY.encode()).hexdigest())
    store.promote("toy", publish_toy(store).version)
    with serving(tmp_path / "store") as url:
        yield url


def operation(visit: Visit, name: str) -> Locator:
    return visit.page.locator(f"[id='operations-default-{name}']")


def try_out(visit: Visit, name: str) -> tuple[str, str]:
    """Open an operation, try it out as it is filled in; give the shown status code and body."""
    block = operation(visit, name)
    block.locator(".opblock-summary-control").click()
    block.get_by_role("button", name="Try it out").click()
    return execute(block)


def execute(block: Locator) -> tuple[str, str]:
    with block.page.expect_response("**/predict**"):
        block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table .response")
    answer.wait_for()
    status = answer.locator(".response-col_status").inner_text()
    return status.strip().split("\n")[0], answer.locator(".highlight-code code").first.inner_text()


def test_the_docs_page_shows_every_operation_without_the_internet(visit: Visit) -> None:
    visit.page.locator(".opblock").first.wait_for()
    document = httpx.get(f"{visit.url}/openapi.json").json()
    shown = visit.page.locator(".opblock-summary-path").all_inner_texts()
    assert [path.replace("\u200b", "") for path in shown] == list(document["paths"])
    assert visit.page.title() == "toy"
    sentence = f"Predicts price (lakh) from {AGE.name}, {POWER.name}, {FUEL.name}."
    assert sentence in visit.page.locator(".info").inner_text()
    assert visit.page.get_by_role("button", name="Authorize").count() == 0
    assert visit.complaints == []


@pytest.mark.parametrize(
    ("name", "path", "body"),
    [
        ("predict", "/predict?explain=false", ROW),
        ("predict_batch", "/predict/batch", {"instances": [ROW]}),
    ],
)
def test_try_it_out_is_answered_at_the_first_click(visit: Visit, name: str, path: str, body: object) -> None:
    status, shown = try_out(visit, name)
    (request,) = visit.posted
    assert request.url == visit.url + path
    assert json.loads(request.post_data or "") == body
    assert status == "200"
    assert json.loads(shown) == httpx.post(visit.url + path, json=body).json()
    assert visit.complaints == []


def test_the_docs_page_tells_units_and_ranges(visit: Visit) -> None:
    block = operation(visit, "predict")
    block.locator(".opblock-summary-control").click()
    body = block.locator(".opblock-section-request-body")
    body.get_by_role("tab", name="Schema").click()
    body.get_by_role("button", name="Expand all").first.click()
    assert "In training 0.5 to 10 years." in body.inner_text()
    assert visit.complaints == []


def test_the_first_models_docs_page_is_answered_at_the_first_click(
    browser: Browser, first_service: str
) -> None:
    with visiting(browser, first_service, "/docs") as visit:
        status, shown = try_out(visit, "predict")
        assert status == "200"
        assert json.loads(visit.posted[0].post_data or "").keys() == {"Kilometers_Driven"}
        assert json.loads(shown)["model"] == "used-car-price"
        assert visit.complaints == []


def test_the_page_of_the_model_asks_for_a_key_and_leads_nowhere_without(
    browser: Browser, keyed_service: str
) -> None:
    with visiting(browser, keyed_service, "/") as visit:
        links = visit.page.locator("a").evaluate_all("links => links.map(link => link.getAttribute('href'))")
        assert links == ["docs"]
        for key, shown in (("another key", "A key is expected"), (KEY, "% of the time")):
            visit.page.get_by_label("Key").fill(key)
            with visit.page.expect_response("**/predict"):
                visit.page.get_by_role("button", name="Predict").click()
            visit.page.get_by_text(shown).wait_for()


def authorize(visit: Visit, key: str) -> None:
    visit.page.locator(".auth-wrapper").get_by_role("button", name="Authorize").first.click()
    dialog = visit.page.locator(".dialog-ux")
    dialog.locator("input").fill(key)
    dialog.get_by_role("button", name="Apply credentials").click()
    dialog.get_by_role("button", name="Close").last.click()


def test_a_key_given_to_authorize_opens_what_is_refused_without(browser: Browser, keyed_service: str) -> None:
    with visiting(browser, keyed_service, "/docs") as visit:
        status, shown = try_out(visit, "predict")
        assert (status, json.loads(shown)["status"]) == ("401", 401)
        authorize(visit, "another key")
        assert execute(operation(visit, "predict"))[0] == "401"
    with visiting(browser, keyed_service, "/docs") as visit:
        authorize(visit, KEY)
        status, shown = try_out(visit, "predict")
        assert status == "200"
        headers = {"Authorization": f"Bearer {KEY}"}
        assert json.loads(shown) == httpx.post(f"{visit.url}/predict", json=ROW, headers=headers).json()
        assert visit.complaints == []
