"""The page at `/`: what is served, for people, with a form to try it. Plain HTML, made from the version."""

import json
from html import escape
from importlib.resources import files
from string import Template
from urllib.parse import quote

from app.serving import Served
from model_store.columns import Feature
from model_store.manifest import Manifest

TEMPLATE = Template(files("app").joinpath("page.html").read_text(encoding="utf-8"))


def page_html(served: Served, *, is_restricted: bool) -> str:
    """The page of the served version; where a key is asked for, with a field for it and no closed links."""
    shows_report = bool(served.report) and not is_restricted
    manifest = served.manifest
    return TEMPLATE.substitute(
        name=escape(served.name),
        version=escape(served.version),
        digest=escape(served.digest),
        created=f"{manifest.created_at:%Y-%m-%d %H:%M} UTC",
        rows=f"{manifest.training.rows:,}",
        sentence=escape(served.sentence),
        fields="\n".join(form_field(feature) for feature in manifest.features),
        inputs="\n".join(input_row(feature) for feature in manifest.features),
        scores=scores(manifest),
        unit=escape(f" {manifest.target.unit}" if manifest.target.unit else ""),
        far=TOO_FAR if manifest.interval else "",
        key=KEY if is_restricted else "",
        links=" · ".join([DOCS, *([] if is_restricted else OPEN), *([REPORT_LINK] if shows_report else [])]),
        report=REPORT if shows_report else "",
    )


DOCS = '<a href="docs">API documentation</a>'
OPEN = ('<a href="model">this page as JSON</a>', '<a href="model/versions">versions</a>')
REPORT_LINK = '<a href="model/report">training report</a>'
KEY = '<label>Key <input id="key" type="password" autocomplete="off" required></label>'
# What the form says of inputs outside training if the model has intervals and the answer has none.
TOO_FAR = ", so far that no interval is claimed"
REPORT = '<iframe src="model/report" title="The training report" sandbox loading="lazy"></iframe>'


# How the form asks for what a JSON Schema's format, or else its type, is.
INPUTS = {
    "number": 'type="number" step="any"',
    "string": 'type="text"',
    "date": 'type="date"',
    "date-time": 'type="datetime-local" step="any"',
}


def form_field(feature: Feature) -> str:
    """A field of the form, filled in with the feature's example."""
    return f"<label>{escape(feature.heading)} {control(feature)}</label>"


def control(feature: Feature) -> str:
    """A list of choices where there are no other values, or an input, which may suggest some."""
    schema, options = feature.value_schema, choices(feature)
    required = "" if feature.accepts(None) else " required"
    marks = f'name="{escape(feature.name)}" data-type="{schema["type"]}"{required}'
    if schema["type"] == "boolean" or "enum" in schema:
        return f"<select {marks}>{'' if required else '<option></option>'}{options}</select>"
    asked = INPUTS[schema.get("format", schema["type"])]
    field = f'<input {marks} {asked} value="{escape(example(feature))}"'
    if not options:
        return f"{field}>"
    suggested = f"choices-{quote(feature.name, safe='')}"
    return f'{field} list="{suggested}"><datalist id="{suggested}">{options}</datalist>'


def choices(feature: Feature) -> str:
    """The values of an input that can be listed, its example selected."""
    return "".join(
        f"<option{' selected' if choice == example(feature) else ''}>{escape(choice)}</option>"
        for choice in feature.choices
    )


def example(feature: Feature) -> str:
    """The example as a form holds it."""
    value = feature.plain_example
    return value if isinstance(value, str) else json.dumps(value)


def input_row(feature: Feature) -> str:
    """A row of the table of inputs."""
    note = f"<br><small>{escape(feature.description)}</small>" if feature.description else ""
    cells = feature.figures
    span = " colspan=4" if len(cells) == 1 else ""
    figures = "".join(f"<td{span}>{escape(cell)}</td>" for cell in cells)
    return f"<tr><th scope=row>{escape(feature.heading)}{note}</th>{figures}</tr>"


def scores(manifest: Manifest) -> str:
    """The held-out scores beside the baselines."""
    metrics = manifest.metrics
    if metrics is None:
        return "<p>No rows were held out to score it on.</p>"
    rows = (
        ("this model", metrics.model),
        ("least squares", metrics.least_squares),
        ("the mean", metrics.predict_the_mean),
    )
    body = "".join(
        f"<tr><th scope=row>{label}</th><td>{score.r2:.4f}</td><td>{score.rmse:,.4g}</td>"
        f"<td>{score.mae:,.4g}</td></tr>"
        for label, score in rows
    )
    head = f"<tr><th>on {metrics.rows:,} rows it had not seen</th><th>R²</th><th>RMSE</th><th>MAE</th></tr>"
    return f'<div class="wide"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'
