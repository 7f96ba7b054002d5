"""Look at a store and change what is promoted: `python -m model_store list | show | promote | rollback`.

Exit codes: 0 done, 2 usage, 3 the store refused.
"""

import argparse
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from model_store.errors import NothingPromoted, StoreError
from model_store.manifest import CategoricalFeature, Feature, Manifest
from model_store.store import Promotion, Store, Version, open_store


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    store = open_store(options.store)
    try:
        print(options.run(store, options))
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    return 0


def parser() -> argparse.ArgumentParser:
    """Every command and its arguments."""
    top = argparse.ArgumentParser("python -m model_store", description=__doc__)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--store", default="models", help="the store's folder (default: models)")
    named = argparse.ArgumentParser(add_help=False, parents=[common])
    named.add_argument("name", help="the model's name")
    reasoned = argparse.ArgumentParser(add_help=False, parents=[named])
    reasoned.add_argument("--reason", type=unicode_text, help="kept in the history")

    listing = commands.add_parser("list", parents=[common], help="all models and their versions")
    listing.set_defaults(run=run_list)
    show = commands.add_parser("show", parents=[named], help="what a version is")
    show.add_argument("version", nargs="?", type=int, help="default: the promoted one")
    show.set_defaults(run=run_show)
    promote = commands.add_parser("promote", parents=[reasoned], help="verify a version and promote it")
    promote.add_argument("version", type=int)
    promote.set_defaults(run=run_promote)
    rollback = commands.add_parser("rollback", parents=[reasoned], help="promote the previous version again")
    rollback.set_defaults(run=run_rollback)
    return top


def unicode_text(argument: str) -> str:
    """Refuse bytes that are no text in the terminal's encoding."""
    if not argument.isprintable():
        message = "a line of text is due"
        raise argparse.ArgumentTypeError(message)
    return argument


def run_list(store: Store, _options: argparse.Namespace) -> str:
    """One line a version."""
    heading = f"{'model':24} {'version':>7}  {'':8}  {'made (UTC)':16}  {'R²':>7}  predicts"
    lines = [list_line(store, name, number) for name in store.models() for number in store.versions(name)]
    return "\n".join([heading, *lines]) if lines else f"the store {store.url} is empty"


def list_line(store: Store, name: str, number: int) -> str:
    """One version in a line, its held-out R² included; the files behind it are not verified here."""
    mark = "promoted" if number == promoted_version(store, name) else ""
    start = f"{name:24} {number:7}  {mark:8}"
    try:
        manifest, _ = store.read_manifest(name, number)
    except StoreError as error:
        return f"{start}  {error}"
    r2 = f"{manifest.metrics.model.r2:.4f}" if manifest.metrics else "–"
    inputs = ", ".join(feature.name for feature in manifest.features)
    return f"{start}  {manifest.created_at:%Y-%m-%d %H:%M}  {r2:>7}  {manifest.target.name} from {inputs}"


def run_show(store: Store, options: argparse.Namespace) -> str:
    """A version's inputs, weights and scores."""
    return describe(
        store.load_promoted(options.name)
        if options.version is None
        else store.load(options.name, options.version)
    )


def run_promote(store: Store, options: argparse.Namespace) -> str:
    """Promote and say so."""
    return announce(options.name, store.promote(options.name, options.version, options.reason))


def run_rollback(store: Store, options: argparse.Namespace) -> str:
    """Roll back and say so."""
    return announce(options.name, store.rollback(options.name, options.reason))


def promoted_version(store: Store, name: str) -> int | None:
    """The promoted version's number, if there is one."""
    try:
        return store.promoted(name).version
    except NothingPromoted:
        return None


def announce(name: str, promotion: Promotion) -> str:
    """What is promoted now, and since which generation."""
    before = f", before it {promotion.previous}" if promotion.previous else ""
    return f"{name}: version {promotion.version} is promoted (generation {promotion.generation}{before})"


def describe(version: Version) -> str:
    """A version in a screenful."""
    manifest = version.manifest
    target = f"{manifest.target.name}{in_unit(manifest.target.unit)}"
    return "\n".join(
        [
            f"{manifest.name} version {manifest.version}, made {manifest.created_at:%Y-%m-%d %H:%M} UTC",
            f"digest    {version.digest}",
            f"predicts  {target}, network {manifest.network.kind}",
            *(f"from      {describe_feature(feature)}" for feature in manifest.features),
            *describe_scores(manifest),
            *(
                f"tensor    {name} {list(tensor.shape)} = {tensor.ravel()[:6].tolist()}"
                f"{' …' if tensor.size > 6 else ''}"
                for name, tensor in sorted(version.predictor.weights.items())
            ),
        ]
    )


def describe_feature(feature: Feature) -> str:
    """One input in a line."""
    if isinstance(feature, CategoricalFeature):
        return f"{feature.name}: {', '.join(feature.values)}"
    return (
        f"{feature.name}{in_unit(feature.unit)}: {feature.minimum:g} to {feature.maximum:g}, "
        f"mean {feature.mean!r}, std {feature.std!r}"
    )


def describe_scores(manifest: Manifest) -> list[str]:
    """The held-out scores beside the baselines, in lines."""
    metrics = manifest.metrics
    if metrics is None:
        return ["scores    none: no rows were held out"]
    rows = {
        "model": metrics.model,
        "least squares": metrics.least_squares,
        "predict the mean": metrics.predict_the_mean,
    }
    return [
        f"scores    {label:17} R² {scores.r2:.4f}  RMSE {scores.rmse:.4f}  MAE {scores.mae:.4f}  "
        f"on {metrics.rows} held-out rows"
        for label, scores in rows.items()
    ]


def in_unit(unit: str | None) -> str:
    """A unit in brackets, if there is one."""
    return f" ({unit})" if unit else ""


if __name__ == "__main__":
    sys.exit(main())
