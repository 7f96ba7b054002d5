"""The page at `/`: what is served, for people, with a form to try it. Plain HTML, made from the version."""

from html import escape
from importlib.resources import files
from string import Template

from app.serving import Served
from model_store.columns import CategoricalFeature, Feature
from model_store.manifest import Manifest

TEMPLATE = Template(files("app").joinpath("page.html").read_text(encoding="utf-8"))


def page(served: Served, *, is_restricted: bool) -> str:
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
        key=KEY if is_restricted else "",
        links=" · ".join([DOCS, *([] if is_restricted else OPEN), *([REPORT_LINK] if shows_report else [])]),
        report=REPORT if shows_report else "",
    )


DOCS = '<a href="docs">API documentation</a>'
OPEN = ('<a href="model">this page as JSON</a>', '<a href="model/versions">versions</a>')
REPORT_LINK = '<a href="model/report">training report</a>'
KEY = '<label>Key <input id="key" type="password" autocomplete="off" required></label>'
REPORT = '<iframe src="model/report" title="The training report" sandbox loading="lazy"></iframe>'


def form_field(feature: Feature) -> str:
    """A field of the form, filled in with the feature's example."""
    name, example = escape(feature.name, quote=True), str(feature.plain_example)
    choices = feature.json_schema.get("enum")
    if choices is not None:
        options = "".join(
            f"<option{' selected' if choice == example else ''}>{escape(choice)}</option>"
            for choice in choices
        )
        control = f'<select name="{name}">{options}</select>'
    else:
        required = "" if feature.accepts(None) else " required"
        value = escape(example, quote=True)
        control = f'<input name="{name}" type="number" step="any"{required} value="{value}">'
    return f"<label>{name}{in_unit(feature)} {control}</label>"


def input_row(feature: Feature) -> str:
    """A row of the table of inputs."""
    described = f"<br><small>{escape(feature.description)}</small>" if feature.description else ""
    head = f"<th scope=row>{escape(feature.name)}{in_unit(feature)}{described}</th>"
    if isinstance(feature, CategoricalFeature):
        total = sum(category.rows for category in feature.categories)
        values = ", ".join(
            f"{escape(category.value)} {category.rows / total:.1%}" for category in feature.categories
        )
        return f"<tr>{head}<td colspan=4>{values}</td></tr>"
    numbers = (feature.minimum, feature.maximum, feature.mean, feature.std)
    return f"<tr>{head}{''.join(f'<td>{short(number)}</td>' for number in numbers)}</tr>"


def short(number: float) -> str:
    """Six significant digits, as the form's script writes them: without an exponent up to a trillion."""
    return f"{float(f'{number:.6g}'):,.12g}"


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


def in_unit(feature: Feature) -> str:
    """A number's unit in brackets, if it has one."""
    unit = None if isinstance(feature, CategoricalFeature) else feature.unit
    return f" ({escape(unit)})" if unit else ""
