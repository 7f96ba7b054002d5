"""From what the cells of each column are like to what a model takes it for, or why it is left out.

What a person named in the recipe stays as it is; what was not named is a number, a category, a boolean or a
date where that can be told and used, and is left out otherwise.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from model_store.manifest import GroupSplit
from training.recipe import InputColumn, Recipe
from training.study import ISO, MOST_TEXTS, NEGATIVE, Study

# This share of the cells that are not empty makes a column one of numbers; the others are its missing words.
MOSTLY_NUMBERS = 0.95
# A column of numbers has few units: "328i" and "500L" are names.
MOST_UNITS = 5
# From this share of different values on, they are taken to tell the rows apart.
NEARLY_ALL = 0.95
# A category is worth a weight of its own from ten rows on, where the mean of its rows errs by no more than a
# third of their standard deviation. Fewer rows are not enough to tell a column from a constant one either.
RARE = 10
FREE_TEXT_WORDS = 3
IDENTIFIER = re.compile(r"(?i:(.*[\W_])?(id|uuid|guid|pid)|index|row[\W_]?(number|no)?)|.*[a-z]I[Dd]")
UNNAMED = re.compile("(?i)(unnamed.*|column_1)?")


@dataclass(frozen=True)
class Decision:
    """What a column is taken for, None if it is left out, and why."""

    name: str
    taken_as: InputColumn | None
    why: str

    @property
    def words(self) -> str:
        """What it is taken for, in a word or two."""
        if self.taken_as is None:
            return "left out"
        return {"numeric": "number", "categorical": "category"}.get(self.taken_as.kind, self.taken_as.kind)


def infer(studies: Iterable[Study], recipe: Recipe) -> tuple[Decision, ...]:
    """Decide on every column but the target, in the table's order."""
    named = {feature.name: feature for feature in recipe.features}
    decisions = []
    for study in studies:
        if study.name in recipe.exclude:
            decisions.append(left_out(study, "as was asked"))
        elif study.is_repeated:
            decisions.append(left_out(study, "several columns have this name: rename all but one"))
        elif study.name in named:
            decisions.append(Decision(study.name, named[study.name], "as was asked"))
        elif study.name == recipe.weight:
            decisions.append(left_out(study, "it says how much each row counts"))
        elif isinstance(recipe.split, GroupSplit) and study.name == recipe.split.column:
            decisions.append(left_out(study, "a group that is scored on is one that was not seen"))
        elif study.name != recipe.target.name:
            decisions.append(decide(study, recipe.rare or RARE))
    return tuple(decisions)


def closed(recipe: Recipe, decisions: Iterable[Decision]) -> Recipe:
    """The recipe with what was decided, and what suits features that nobody chose.

    A category that is rare or new is 'other'.
    """
    features = [decision.taken_as for decision in decisions if decision.taken_as]
    split, formats = recipe.split, {feature.name: feature.format for feature in features}
    if split.kind == "time" and split.format is None:
        split = split.model_copy(update={"format": formats.get(split.column)})
    return recipe.model_copy(
        update={
            "features": tuple(features),
            "exclude": (),
            "split": split,
            "rare": recipe.rare or (1 if recipe.new_categories == "refuse" else RARE),
            "new_categories": recipe.new_categories or "other",
        }
    )


def decide(study: Study, rare: int) -> Decision:
    """What a column is that nobody named: the first of the kinds that it fits."""
    for kind in (nothing, boolean, date, number, category):
        found = kind(study, rare)
        if found:
            return found
    return text(study, rare)


def left_out(study: Study, why: str) -> Decision:
    """A column that is no input."""
    return Decision(study.name, None, why)


def nothing(study: Study, rare: int) -> Decision | None:
    """Empty, or so nearly constant that nothing can be learned from it."""
    if not study.texts.total:
        return left_out(study, "it is empty")
    (most, rows), *_ = study.texts.rows.most_common(1)
    if rows == study.rows:
        return left_out(study, f"all rows have {shown(most)}")
    if study.rows - rows < rare:
        return left_out(study, f"only {study.rows - rows} of {study.rows:,} rows have not {shown(most)}")
    return None


def boolean(study: Study, _rare: int) -> Decision | None:
    """True and false, in any case."""
    if {text.lower() for text in study.texts.rows} != {"true", "false"}:
        return None
    trues = sum(rows for text, rows in study.texts.rows.items() if text.lower() == "true")
    column = InputColumn(name=study.name, kind="boolean")
    return Decision(study.name, column, f"true in {trues:,} of {study.rows:,} rows{empties(study)}")


def date(study: Study, _rare: int) -> Decision | None:
    """Dates in one format; where day and month could be exchanged, the order of the rows decides."""
    formats = study.dates.formats
    if not formats:
        return None
    form, why = next(iter(formats)), ""
    other = exchanged(form)
    if other != form and other in formats:
        one_way = [name for name in (form, other) if formats[name].is_one_way]
        if len(one_way) != 1:
            hint = f'say --date "{study.name}={form}", or "{study.name}={other}"'
            return left_out(study, f"the dates could be {form} as well as {other}: {hint}")
        (form,) = one_way
        why = f", not {exchanged(form)}: so the rows are in the order of time"
    if missing := study.numbers.holes.total():
        return left_out(study, f"dates, but {missing:,} rows have none; --date drops these")
    column = InputColumn(name=study.name, kind="date", format=None if form == ISO else form)
    return Decision(study.name, column, f"dates as {form}{why}")


def exchanged(form: str) -> str:
    """A format with day and month exchanged."""
    return form.translate(str.maketrans("dm", "md"))


def number(study: Study, rare: int) -> Decision | None:
    """Numbers, perhaps with units and a few words for a missing one, unless they only tell the rows apart."""
    numbers = study.numbers
    if are_codes(study):
        why = "they are codes, as they have zeros in front: --feature takes them for numbers"
        return category(study, rare) or left_out(study, why)
    negative = next(filter(NEGATIVE.fullmatch, numbers.words), None)
    if negative and 2 * numbers.rows >= study.texts.total:
        return left_out(
            study, f"{shown(negative)} seems to be a negative number: write it with a minus in front"
        )
    if not numbers.rows or numbers.rows < MOSTLY_NUMBERS * (numbers.rows + numbers.words.total()):
        return None
    if numbers.other_words or len(numbers.units) > MOST_UNITS or are_numbered_words(study):
        return None
    if trouble := useless(study, rare):
        return left_out(study, trouble)
    column = InputColumn(
        name=study.name,
        missing="indicator" if numbers.rows < study.rows else None,
        missing_words=tuple(numbers.words),
    )
    return Decision(study.name, column, f"{numbers.least:g} to {numbers.greatest:g}{numeric_notes(study)}")


def are_codes(study: Study) -> bool:
    """Whether the numbers have the same number of digits each, some with zeros in front, as zip codes do."""
    texts = texts_with_numbers(study)
    are_alike = len(set(map(len, texts))) == 1 and all(map(str.isdecimal, texts))
    return are_alike and any(text.startswith("0") and text.strip("0") for text in texts)


def are_numbered_words(study: Study) -> bool:
    """Whether each number has a word of its own, as in "1. White" and "2. Black", which is no unit."""
    return 1 < len(study.numbers.units) == len(texts_with_numbers(study))


def texts_with_numbers(study: Study) -> set[str]:
    """The different texts of a column that are read as numbers."""
    return study.texts.rows.keys() - study.numbers.words.keys() - study.numbers.holes.keys()


def numeric_notes(study: Study) -> str:
    """The units of a column of numbers, the words that count as missing, and how many are missing."""
    numbers = study.numbers
    notes = [f", {unit}" for unit in [" or ".join(unit for unit, _ in numbers.units.most_common())] if unit]
    notes += [f"; {shown(word)} in {rows:,} rows counts as missing" for word, rows in numbers.words.items()]
    missing = study.rows - numbers.rows
    notes += [f"; {missing:,} of {study.rows:,} rows have none: a column of its own tells"] if missing else []
    return "".join(notes)


def useless(study: Study, rare: int) -> str | None:
    """Why a column of numbers is left out: it tells the rows apart, or hardly varies."""
    numbers = study.numbers
    if numbers.counts:
        return "it counts the rows, and a new row has no such number"
    is_named = IDENTIFIER.fullmatch(study.name) or (study.place == 0 and UNNAMED.fullmatch(study.name))
    if is_named and numbers.whole and nearly_all_differ(study):
        return "it tells the rows apart: nearly all numbers differ"
    no_numbers = numbers.words.keys() | numbers.holes.keys()
    most = next(rows for text, rows in study.texts.rows.most_common() if text not in no_numbers)
    if numbers.rows - most < rare:
        return f"only {numbers.rows - most} of {numbers.rows:,} numbers differ from the most frequent one"
    return None


def nearly_all_differ(study: Study) -> bool:
    """Whether nearly every row has a value that no other has, in the first piece of the table."""
    return study.texts.differing >= NEARLY_ALL * study.texts.first


def category(study: Study, rare: int) -> Decision | None:
    """Texts that are shared by enough rows each, in most of the rows that have one."""
    texts = study.texts
    frequent = [rows for rows in texts.rows.values() if rows >= rare]
    if texts.others or 2 * sum(frequent) < texts.total:
        return None
    column = InputColumn(name=study.name, kind="categorical")
    merged = len(texts.rows) - len(frequent)
    rest = f", {merged} of them with fewer than {rare} rows are one: other" if merged else ""
    return Decision(study.name, column, f"{len(texts.rows):,} different texts{rest}{empties(study)}")


def text(study: Study, rare: int) -> Decision:
    """A column of which nothing can be made, and why."""
    texts = study.texts
    if nearly_all_differ(study):
        if texts.words >= FREE_TEXT_WORDS * texts.total:
            return left_out(study, "free text: nearly all rows differ")
        return left_out(study, "it tells the rows apart: nearly all texts differ")
    if texts.others:
        return left_out(study, f"more than {MOST_TEXTS:,} different texts")
    return left_out(study, f"most rows have a text that fewer than {rare} rows share")


def empties(study: Study) -> str:
    """How many rows have no text."""
    return f"; {study.empty:,} rows have none, which is a category of its own" if study.empty else ""


def shown(text: str) -> str:
    """A text, shortened."""
    return repr(text if len(text) <= 40 else f"{text[:39]}…")
