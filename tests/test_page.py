import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser

from model_store.manifest import Description, Linear, ResidualQuantiles
from model_store.predictor import dump_weights
from model_store.store import Store
from tests.browser import Visit, visiting
from tests.conftest import serving
from tests.in_process import calling
from tests.toys import AGE, FEATURES, FUEL, POWER, publish_toy, toy_description, toy_weights

ROW = {AGE.name: AGE.example, POWER.name: POWER.example, FUEL.name: FUEL.example}


@pytest.fixture
def visit(browser: Browser, mixed_service: str) -> Iterator[Visit]:
    with visiting(browser, mixed_service, "/") as visit:
        yield visit


@pytest.fixture
def first_visit(browser: Browser, first_service: str) -> Iterator[Visit]:
    with visiting(browser, first_service, "/") as visit:
        yield visit


def press(visit: Visit) -> str:
    """Click on Predict once; give what the page shows when the service has answered."""
    with visit.page.expect_response("**/predict") as answered:
        visit.page.get_by_role("button", name="Predict").click()
    answered.value.finished()
    visit.page.wait_for_function("document.querySelector('output').textContent !== ''")
    return visit.page.locator("output").inner_text()


def field(visit: Visit, name: str) -> str:
    """The value of the form's field of that name, compared as a string, not as a selector."""
    found = visit.page.evaluate(
        """name => [...document.querySelectorAll("form [name]")]
            .filter(field => field.name === name).map(field => field.value)""",
        name,
    )
    assert len(found) == 1
    return str(found[0])


def table(visit: Visit, number: int) -> list[list[str]]:
    """The texts of a table's cells, row by row."""
    rows = visit.page.locator("table").nth(number).locator("tbody tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


def shown(number: float) -> str:
    """The number with six significant digits and commas, as the page writes it."""
    return f"{float(f'{number:.6g}'):,.12g}"


def test_the_page_says_what_is_served_and_asks_for_every_input(visit: Visit) -> None:
    served = httpx.get(f"{visit.url}/model").json()
    assert visit.page.title() == "toy"
    assert visit.page.locator("h1").inner_text() == "toy"
    text = visit.page.locator("body").inner_text()
    assert f"Predicts price (lakh) from {AGE.name}, {POWER.name}, {FUEL.name}." in text
    assert served["digest"] in text
    assert [float(field(visit, feature.name)) for feature in (AGE, POWER)] == [4.0, 90.5]
    assert visit.page.locator("select").evaluate("s => [s.name, s.value]") == [FUEL.name, "diesel"]
    assert visit.page.locator("option").all_inner_texts() == list(FUEL.values)
    assert visit.page.get_by_label(POWER.name).input_value() == "90.5"
    assert visit.complaints == []


def test_one_click_shows_the_prediction_that_the_service_gives(visit: Visit) -> None:
    text = press(visit)
    (request,) = visit.posted
    assert json.loads(request.post_data or "") == ROW
    answer = httpx.post(f"{visit.url}/predict", json=ROW).json()
    assert text.startswith(shown(answer["prediction"]))
    assert f"between {shown(answer['interval']['lower'])} and {shown(answer['interval']['upper'])}" in text
    assert "lakh" in text
    assert "outside" not in text
    assert visit.complaints == []


def test_what_is_typed_and_chosen_is_what_is_predicted_and_named_when_out_of_range(visit: Visit) -> None:
    visit.page.get_by_label(POWER.name).fill("312.5")
    visit.page.get_by_label(FUEL.name).select_option("a,b")
    text = press(visit)
    row = ROW | {POWER.name: 312.5, FUEL.name: "a,b"}
    assert json.loads(visit.posted[0].post_data or "") == row
    answer = httpx.post(f"{visit.url}/predict", json=row).json()
    assert answer["out_of_range"] == [POWER.name]
    assert text.startswith(shown(answer["prediction"]))
    assert "% of the time between" in text
    assert text.endswith(f"outside the training range: {POWER.name}")
    assert visit.complaints == []


def test_an_input_far_outside_training_is_named_as_why_there_is_no_interval(visit: Visit) -> None:
    visit.page.get_by_label(POWER.name).fill("1234.5")
    text = press(visit)
    answer = httpx.post(f"{visit.url}/predict", json=ROW | {POWER.name: 1234.5}).json()
    far = f"outside the training range: {POWER.name}, so far that no interval is claimed"
    assert text == f"{shown(answer['prediction'])} lakh, {far}"
    assert visit.complaints == []


def test_a_value_the_service_refuses_is_answered_with_its_sentence(visit: Visit) -> None:
    visit.page.locator("option", has_text="diesel").evaluate("option => { option.value = 'steam'; }")
    text = press(visit)
    problem = httpx.post(f"{visit.url}/predict", json=ROW | {FUEL.name: "steam"}).json()
    assert problem["status"] == 422
    assert text == f"{problem['detail']} {problem['errors'][0]['detail']}"
    (complaint,) = visit.complaints
    assert "422" in complaint


def test_a_service_that_does_not_answer_is_said(visit: Visit) -> None:
    press(visit)
    visit.page.route("**/predict", lambda route: route.abort())
    visit.page.get_by_role("button", name="Predict").click()
    visit.page.get_by_text("The service did not answer.").wait_for()


def test_the_table_of_inputs_shows_range_mean_and_std(visit: Visit) -> None:
    assert table(visit, 0) == [
        ["age (years)", "0.5", "10", "5.25", "2.5"],
        [POWER.name, "40", "300", "100.1", "33.3"],
        ["fuel type", "petrol 53.8%, diesel 38.5%, a,b 7.7%"],
    ]


def test_a_great_number_is_written_out(first_visit: Visit) -> None:
    (row,) = table(first_visit, 0)
    greatest = httpx.get(f"{first_visit.url}/model").json()["features"][0]["maximum"]
    assert greatest >= 1e6
    assert row[2] == shown(greatest)


def test_the_scores_stand_beside_the_baselines(first_visit: Visit) -> None:
    metrics = httpx.get(f"{first_visit.url}/model").json()["metrics"]
    rows = {row[0]: [float(cell.replace(",", "")) for cell in row[1:]] for row in table(first_visit, 1)}
    for label, key in {
        "this model": "model",
        "least squares": "least_squares",
        "the mean": "predict_the_mean",
    }.items():
        score = metrics[key]
        assert rows[label] == pytest.approx([score["r2"], score["rmse"], score["mae"]], rel=1e-3, abs=1e-4)
    assert f"{metrics['rows']:,} rows" in first_visit.page.locator("table").nth(1).inner_text()


def test_the_reports_pictures_are_seen_inside_the_page(first_visit: Visit) -> None:
    frame = first_visit.page.frame_locator("iframe")
    first_visit.page.locator("iframe").scroll_into_view_if_needed()
    pictures = frame.locator("img, svg")
    pictures.first.wait_for()
    for picture in pictures.all():
        assert picture.evaluate("p => p.tagName !== 'IMG' || (p.complete && p.naturalWidth > 0)")
        box = picture.bounding_box()
        assert box
        assert min(box["width"], box["height"]) > 50
    assert first_visit.complaints == []


@pytest.mark.parametrize("first", [True, False], ids=["first", "mixed"])
def test_every_link_of_the_page_leads_to_an_answer(
    browser: Browser, first_service: str, mixed_service: str, *, first: bool
) -> None:
    with visiting(browser, first_service if first else mixed_service, "/") as visit:
        links = visit.page.locator("a").evaluate_all("links => links.map(link => link.href)")
        assert f"{visit.url}/model" in links
        assert (f"{visit.url}/model/report" in links) == first
        assert {httpx.get(link).status_code for link in links} == {200}


@pytest.mark.parametrize("first", [True, False], ids=["first", "mixed"])
def test_a_narrow_window_has_no_horizontal_scroll(
    browser: Browser, first_service: str, mixed_service: str, *, first: bool
) -> None:
    with visiting(browser, first_service if first else mixed_service, "/", width=360) as visit:
        press(visit)
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("accept", ["*/*", "application/json", None])
def test_who_does_not_ask_for_html_gets_the_json_of_the_model(mixed_service: str, accept: str | None) -> None:
    with httpx.Client(base_url=mixed_service) as client:
        del client.headers["Accept"]
        headers = {"Accept": accept} if accept else {}
        answer = client.get("/", headers=headers)
        assert answer.headers["Content-Type"] == "application/json"
        assert answer.content == client.get("/model").content
        assert "Accept" in answer.headers["Vary"]


def renamed(names: dict[str, str], **changes: float) -> Description:
    """The toy with other names for its inputs, and changes to its first."""
    toy = toy_description()
    features = [feature.model_copy(update={"name": names[feature.name]}) for feature in FEATURES]
    features[0] = features[0].model_copy(update=changes)
    golden = [
        row.model_copy(update={"inputs": {names[name]: value for name, value in row.inputs.items()}})
        for row in toy.golden
    ]
    return toy.model_copy(update={"features": tuple(features), "golden": tuple(golden)})


@pytest.mark.parametrize("interval", [toy_description().interval, None], ids=["interval", "none"])
def test_only_a_model_with_intervals_says_that_none_is_claimed(
    store: Store, interval: ResidualQuantiles | None
) -> None:
    store.promote("toy", publish_toy(store, interval=interval).version)
    with calling(store) as client:
        page = client.get("/", headers={"Accept": "text/html"}).text
    assert ("no interval is claimed" in page) == (interval is not None)


@pytest.fixture
def odd_service(store: Store, tmp_path: Path) -> Iterator[str]:
    """The address of a service of the toy under names that HTML and its scripts give a meaning to."""
    hostile = {
        AGE.name: "__proto__",
        POWER.name: "elements",
        FUEL.name: "</script><b onclick='x'>&amp;${name}",
    }
    made = store.publish(
        renamed(hostile, fill=5.25), dump_weights(toy_weights(Linear(), 5)), lambda _number: {}
    )
    store.promote("toy", made.version)
    with serving(tmp_path / "store") as url:
        yield url


def test_names_that_html_and_its_scripts_give_a_meaning_to_are_only_names(
    browser: Browser, odd_service: str
) -> None:
    served = httpx.get(f"{odd_service}/model").json()
    names = [feature["name"] for feature in served["features"]]
    with visiting(browser, odd_service, "/") as visit:
        text = press(visit)
        sent = json.loads(visit.posted[0].post_data or "")
        assert list(sent) == names
        assert [row[0].removesuffix(" (years)") for row in table(visit, 0)] == names
        answer = httpx.post(f"{odd_service}/predict", json=sent).json()
        assert text.startswith(shown(answer["prediction"]))
        assert visit.complaints == []


def test_an_input_that_may_be_missing_may_be_left_empty(browser: Browser, odd_service: str) -> None:
    with visiting(browser, odd_service, "/") as visit:
        visit.page.get_by_label("__proto__").fill("")
        text = press(visit)
        sent = json.loads(visit.posted[0].post_data or "")
        assert sent["__proto__"] is None
        answer = httpx.post(f"{odd_service}/predict", json=sent).json()
        assert text.startswith(shown(answer["prediction"]))
