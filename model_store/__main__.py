"""Look after a store: `python -m model_store list | show | verify | history | promote | rollback | prune`.

`--store` takes a folder or the URL of an object store. `--json` prints one JSON object a line.
Exit codes: 0 done, 2 usage, 3 the store refused, or something in it is broken.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from typing import Any

from model_store.difference import Difference, differences
from model_store.errors import NothingPromoted, StoreError
from model_store.promotions import LONGEST_REASON, Promotion
from model_store.store import Store, open_store
from model_store.tables import (
    HISTORY_HEADING,
    LIST_HEADING,
    differences_text,
    history_line,
    list_line,
    promoted_line,
    prune_line,
    version_text,
)
from model_store.versions import Version

NEWEST_KEPT = 10


@dataclass(frozen=True)
class Outcome:
    """One thing a command found or did: a line or a screenful for people, an object for scripts."""

    text: str
    data: Mapping[str, Any]
    refused: bool = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = parser().parse_args(arguments)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    is_shown = refused = False
    try:
        for outcome in options.run(open_store(options.store), options):
            if options.heading and not is_shown and not options.json:
                print(options.heading)
            print(json.dumps(outcome.data, default=str) if options.json else outcome.text, flush=True)
            is_shown, refused = True, refused or outcome.refused
    except StoreError as error:
        print(f"error: {error}", file=sys.stderr)
        return 3
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 3 if refused else 0
    if not is_shown and not options.json:
        print(options.nothing.format(options.store))
    return 3 if refused else 0


def parser() -> argparse.ArgumentParser:
    """Every command and its arguments."""
    top = argparse.ArgumentParser(
        "python -m model_store", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--store", default="models", help="a folder, s3://…, gs://… or az://… (default: models)"
    )
    common.add_argument("--json", action="store_true", help="one JSON object a line, for scripts")
    common.set_defaults(heading=None, nothing="nothing to do in the store {}")
    named = argparse.ArgumentParser(add_help=False, parents=[common])
    named.add_argument("name", help="the model's name")
    reasoned = argparse.ArgumentParser(add_help=False, parents=[named])
    reasoned.add_argument("--reason", type=reason, help="kept in the history")

    listing = commands.add_parser("list", parents=[common], help="all models and their versions")
    listing.set_defaults(run=run_list, heading=LIST_HEADING, nothing="the store {} is empty")
    show = commands.add_parser("show", parents=[named], help="what a version is, or how two differ")
    show.add_argument("version", nargs="?", type=int, help="default: the promoted one")
    show.add_argument("--against", type=int, metavar="VERSION", help="show what differs from this one")
    show.set_defaults(run=run_show)
    verify = commands.add_parser("verify", parents=[named], help="check a version, or all and the history")
    verify.add_argument("version", nargs="?", type=int, help="default: every one, and the history")
    verify.set_defaults(run=run_verify)
    history = commands.add_parser("history", parents=[named], help="who was promoted since when and why")
    history.set_defaults(run=run_history, heading=HISTORY_HEADING)
    promote = commands.add_parser("promote", parents=[reasoned], help="verify a version and promote it")
    promote.add_argument("version", type=int)
    promote.set_defaults(run=run_promote)
    rollback = commands.add_parser("rollback", parents=[reasoned], help="promote the previous version again")
    rollback.set_defaults(run=run_rollback)
    prune = commands.add_parser(
        "prune",
        parents=[named],
        help="remove old versions and unfinished ones, never the promoted or the previous",
    )
    prune.add_argument(
        "--keep", type=natural, default=NEWEST_KEPT, help=f"newest to keep (default: {NEWEST_KEPT})"
    )
    prune.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    prune.set_defaults(run=run_prune)
    return top


def reason(argument: str) -> str:
    """A line of text; raises ArgumentTypeError for bytes that are none in its encoding, and for novels."""
    if not argument.isprintable() or len(argument) > LONGEST_REASON:
        message = f"expected a line of text, at most {LONGEST_REASON} characters"
        raise argparse.ArgumentTypeError(message)
    return argument


def natural(argument: str) -> int:
    """A number from 1; raises ArgumentTypeError for anything else."""
    if not argument.isascii() or not argument.isdigit() or int(argument) < 1:
        message = "expected a whole number from 1"
        raise argparse.ArgumentTypeError(message)
    return int(argument)


def run_list(store: Store, _options: argparse.Namespace) -> Iterator[Outcome]:
    """One line a version; the files behind it are not verified here."""
    for name in store.models():
        promoted = promoted_version(store, name)
        for number in store.versions(name):
            record = {"model": name, "version": number, "promoted": number == promoted}
            try:
                manifest, digest = store.read_manifest(name, number)
            except StoreError as error:
                record["error"] = str(error)
            else:
                record |= {
                    "created_at": manifest.created_at,
                    "digest": digest,
                    "target": manifest.target.name,
                    "features": [feature.name for feature in manifest.features],
                    "r2": manifest.metrics.model.r2 if manifest.metrics else None,
                }
            yield Outcome(list_line(record), record)


def run_show(store: Store, options: argparse.Namespace) -> Iterator[Outcome]:
    """A version's inputs, weights and scores, or what differs between two."""
    version = (
        store.load_promoted(options.name)
        if options.version is None
        else store.load(options.name, options.version)
    )
    if options.against is None:
        yield Outcome(version_text(version), version_data(version))
    else:
        against = store.load(options.name, options.against)
        found = differences(version, against)
        yield Outcome(differences_text(version, against, found), difference_data(version, against, found))


def version_data(version: Version) -> dict[str, Any]:
    """Everything of a version, its weights as nested lists."""
    weights = {name: tensor.tolist() for name, tensor in version.predictor.weights.items()}
    return {
        "digest": version.digest,
        "manifest": version.manifest.model_dump(mode="json"),
        "weights": weights,
    }


def difference_data(version: Version, against: Version, found: list[Difference]) -> dict[str, Any]:
    """What differs, as numbers."""
    return {
        "model": version.manifest.name,
        "version": version.manifest.version,
        "against": against.manifest.version,
        "differences": [asdict(difference) | {"change": difference.change} for difference in found],
    }


def run_verify(store: Store, options: argparse.Namespace) -> Iterator[Outcome]:
    """Load each version as a service would, one after the other, then read the history."""
    if options.version is not None:
        digest = store.load(options.name, options.version).digest
        yield verified(options.name, f"version {options.version}", f"whole, digest {digest}")
        return
    for number in store.known_versions(options.name):
        try:
            digest = store.load(options.name, number).digest
        except StoreError as error:
            yield verified(options.name, f"version {number}", str(error), refused=True)
        else:
            yield verified(options.name, f"version {number}", f"whole, digest {digest}")
    try:
        promotions = store.history(options.name)
    except StoreError as error:
        yield verified(options.name, "history", str(error), refused=True)
    else:
        yield verified(options.name, "history", f"whole, {len(promotions)} promotions")


def verified(name: str, subject: str, result: str, *, refused: bool = False) -> Outcome:
    """What came of verifying one thing."""
    record = {"model": name, "subject": subject, "whole": not refused, "result": result}
    return Outcome(f"{name} {subject}: {result}", record, refused)


def run_history(store: Store, options: argparse.Namespace) -> Iterator[Outcome]:
    """Every promotion, oldest first."""
    store.promoted(options.name)
    for promotion in store.history(options.name):
        yield Outcome(history_line(promotion), promotion.model_dump(mode="json"))


def run_promote(store: Store, options: argparse.Namespace) -> Iterator[Outcome]:
    """Promote and say so."""
    yield promoted_outcome(options.name, store.promote(options.name, options.version, options.reason))


def run_rollback(store: Store, options: argparse.Namespace) -> Iterator[Outcome]:
    """Roll back and say so."""
    yield promoted_outcome(options.name, store.rollback(options.name, options.reason))


def promoted_outcome(name: str, promotion: Promotion) -> Outcome:
    """What is promoted now."""
    return Outcome(promoted_line(name, promotion), {"model": name} | promotion.model_dump(mode="json"))


def run_prune(store: Store, options: argparse.Namespace) -> Iterator[Outcome]:
    """Remove what need not be kept, a line each."""
    for number, why in store.prunable(options.name, options.keep).items():
        if not options.dry_run:
            store.prune(options.name, number, why)
        record = {"model": options.name, "version": number, "reason": why, "dry_run": options.dry_run}
        yield Outcome(prune_line(record), record)


def promoted_version(store: Store, name: str) -> int | None:
    """The promoted version's number, if there is one."""
    try:
        return store.promoted(name).version
    except NothingPromoted:
        return None


if __name__ == "__main__":
    sys.exit(main())
