"""What to train and how, as a small closed form: from the command line or from a TOML file."""

import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

from pydantic import (
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from model_store.forms import FormOptions
from model_store.manifest import Linear, Mlp, RandomSplit, Split
from model_store.parts import ColumnName, Part

Optimizer: TypeAlias = Literal["gd", "sgd", "momentum", "rmsprop", "adam", "exact"]
NewCategories: TypeAlias = Literal["refuse", "other"]
NumberEncoding: TypeAlias = Literal["z-score", "clipped", "piecewise"]
Missing: TypeAlias = Literal["drop", "mean", "indicator", "level"]
# With a z-scored input of 70, as one in six thousand rows of a skewed table has, a batch of 64 rows still
# converges at these rates; adam's and rmsprop's are steps in the target's std.
USUAL_RATES: Final[dict[Optimizer, float]] = {
    "gd": 0.1,
    "sgd": 0.01,
    "momentum": 0.001,
    "rmsprop": 0.01,
    "adam": 0.01,
    "exact": 0.1,
}
USUAL_FOLDS = 5


class RecipeInvalid(Exception):
    """A recipe that cannot be followed; its text names the field."""


class TargetColumn(Part):
    """The column to predict; with `log` its natural logarithm is trained, and undone at serving.

    What is predicted then is the median, or with `predicts` the mean, by smearing.
    """

    name: ColumnName
    unit: str | None = None
    transform: Literal["none", "log"] = "none"
    predicts: Literal["median", "mean"] | None = None

    @model_validator(mode="after")
    def _of_a_logarithm(self) -> Self:
        if self.predicts and self.transform != "log":
            message = f"to predict the {self.predicts} goes with the transform 'log': else it is the mean"
            raise ValueError(message)
        return self


class InputColumn(Part):
    """A column to predict from.

    `missing` is what becomes of a row without a value: it is dropped, gets the mean, gets the mean and a mark
    in a column of its own, or has a category of its own. `missing_words` are cells that count as missing in a
    column of numbers. `encoding` is how a number or a date reaches the network: as its z-score, as that
    smoothly clipped, or so and with hats at quantiles, which make a line piecewise linear. Categories with
    fewer than `rare` training rows are one, 'other'; `new_categories` are refused or taken for 'other'.
    `format` is that of the dates, as for strptime, None for ISO 8601. What is not said is as the recipe has
    it.
    """

    name: ColumnName
    kind: Literal["numeric", "categorical", "date", "boolean"] = "numeric"
    unit: str | None = None
    description: str | None = None
    missing: Missing | None = None
    missing_words: tuple[str, ...] = ()
    encoding: NumberEncoding | None = None
    rare: PositiveInt | None = None
    new_categories: NewCategories | None = None
    format: str | None = None

    @model_validator(mode="after")
    def _fits_kind(self) -> Self:
        kinds = {
            "the missing value 'mean'": (self.missing == "mean", {"numeric"}),
            "the missing value 'indicator'": (self.missing == "indicator", {"numeric"}),
            "the missing value 'level'": (self.missing == "level", {"categorical", "boolean"}),
            "missing words": (self.missing_words != (), {"numeric"}),
            "an encoding": (self.encoding is not None, {"numeric", "date"}),
            "rare categories": (self.rare is not None, {"categorical"}),
            "new categories": (self.new_categories is not None, {"categorical"}),
            "a format": (self.format is not None, {"date"}),
        }
        for what, (is_said, fitting) in kinds.items():
            if is_said and self.kind not in fitting:
                message = f"the {self.kind} column {self.name!r} cannot have {what}"
                raise ValueError(message)
        return self


class TableOptions(FormOptions):
    """What is said of a table; what is not said is found out.

    `missing_words` count as missing in every column of numbers; `sheet` is one of an Excel file.
    """

    missing_words: tuple[str, ...] = ()
    sheet: str | None = None


class RidgeNetwork(Part):
    """A line through the encoded inputs, whose weights are kept small as far as held-out rows ask for it.

    Through numbers in piecewise encoding, which is usual here, it is an additive model.
    """

    kind: Literal["ridge"] = "ridge"


class EnsembleNetwork(Part):
    """Small networks, each blind to one fold of the rows, averaged and mixed with an additive model.

    Without `epochs` they are those that do best on the rows left out.
    """

    kind: Literal["ensemble"] = "ensemble"
    epochs: Annotated[int, Field(ge=0)] | None = None


class AutoNetwork(Part):
    """The simplest of a line, an additive model and an ensemble that is not surely worse than the others.

    Looking for it ends after `minutes`, with the best so far.
    """

    kind: Literal["auto"] = "auto"
    minutes: PositiveFloat = 10.0


NetworkAsked = Annotated[
    Linear | Mlp | RidgeNetwork | EnsembleNetwork | AutoNetwork, Field(discriminator="kind")
]


class Schedule(Part):
    """How the weights are found.

    `gd` takes all rows a step, `exact` solves for them, the others take `batch_size` rows a step. The usual
    learning rate is the optimizer's. `normalize = "none"` trains on raw inputs.
    """

    optimizer: Optimizer = "gd"
    learning_rate: PositiveFloat = Field(
        default_factory=lambda said: USUAL_RATES[said.get("optimizer", "gd")]
    )
    epochs: Annotated[int, Field(ge=0)] = 200
    batch_size: Annotated[int, Field(gt=0, lt=2**31)] = 64
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    normalize: Literal["z-score", "none"] = "z-score"

    @property
    def is_descent(self) -> bool:
        """Whether something is said that only a descent heeds."""
        return bool(self.model_fields_set & {"learning_rate", "epochs", "batch_size", "normalize"})


def parse_split(value: object) -> object:
    """The fields of a split from 'random', 'time:COLUMN' or 'group:COLUMN'; what is no text as it is.

    Raises ValueError for another text.
    """
    if not isinstance(value, str):
        return value
    kind, colon, column = value.partition(":")
    if kind not in {"random", "time", "group"} or (kind == "random") == bool(colon):
        message = f"{value!r} is not random, time:COLUMN or group:COLUMN"
        raise ValueError(message)
    return {"kind": kind, "column": column} if colon else {"kind": kind}


def said_of(part: object) -> dict[str, Any]:
    """What is said of a part, which may be one already; nothing of what can be none."""
    if isinstance(part, Part):
        return part.model_dump(exclude_unset=True)
    return part if isinstance(part, dict) else {}


def are_one_number(features: object) -> bool:
    """Whether these features are a single one, and that a number."""
    if not isinstance(features, list | tuple) or len(features) != 1:
        return False
    return bool(said_of(features[0]).get("kind", "numeric") == "numeric")


class Recipe(Part):
    """Everything that decides a model, but the data.

    Without features, or with columns to exclude, it is open: the features that it does not name are found out
    from the table, all but the excluded ones. `weight` is a column that says how much each row counts in the
    cost and in the scores; the columns' statistics and the interval count all rows alike. The model is scored
    on as many folds as `cross_validate` says, or once on the share `holdout`, of 0 not at all; if neither is
    said, on five folds, or as many as a small table allows.

    Where no network, no encoding of all numbers and of the schedule no more than a seed is said, the network
    that suits the table is looked for; but through a single number that is named there goes a line.

    Where no optimizer is said, an mlp descends by `adam`, and so does a line of one number by `gd`, unless an
    encoding is said, as does one of which a learning rate, epochs or the like are said; any other line is
    solved for. Networks that are fitted in a way of their own heed but the schedule's seed and have no other
    said; `auto` tries encodings too, so that none is said for all numbers.
    """

    target: TargetColumn
    features: Annotated[tuple[InputColumn, ...], Field(min_length=1)] = ()
    exclude: tuple[ColumnName, ...] = ()
    encoding: NumberEncoding | None = None
    network: NetworkAsked = Linear()
    schedule: Annotated[Schedule, Field(validate_default=True)] = Schedule()
    holdout: Annotated[float, Field(ge=0, le=0.9)] | None = None
    split: Annotated[Split, BeforeValidator(parse_split)] = RandomSplit()
    cross_validate: Annotated[int, Field(ge=2)] | None = None
    weight: ColumnName | None = None
    missing: Literal["drop", "mean"] = "drop"
    rare: PositiveInt | None = None
    new_categories: NewCategories | None = None
    table: TableOptions = TableOptions()

    @property
    def is_open(self) -> bool:
        """Whether features are still to be found out."""
        return not self.features or bool(self.exclude)

    def missing_of(self, column: InputColumn) -> Missing:
        """What becomes of a row in which a feature has no value."""
        usual: dict[str, Missing] = {"numeric": self.missing, "date": "drop"}
        return column.missing or usual.get(column.kind, "level")

    def encoding_of(self, column: InputColumn) -> NumberEncoding:
        """How a feature that is a number or a date reaches the network."""
        is_curved = isinstance(self.network, RidgeNetwork | EnsembleNetwork)
        return column.encoding or self.encoding or ("piecewise" if is_curved else "z-score")

    def rare_of(self, column: InputColumn) -> int:
        """The fewest training rows with which a category is one of its own."""
        return column.rare or self.rare or 1

    def new_categories_of(self, column: InputColumn) -> NewCategories:
        """What becomes of a category that was not in training."""
        return column.new_categories or self.new_categories or "refuse"

    @property
    def is_scored(self) -> bool:
        """Whether the model is scored on rows that it has not seen."""
        return self.in_folds or bool(self.holdout)

    @property
    def in_folds(self) -> bool:
        """Whether it is scored on each row in its turn."""
        return self.cross_validate is not None or self.holdout is None

    @property
    def beside(self) -> list[str]:
        """The columns that say how rows are split and weighted; they may be inputs as well."""
        split_by = None if isinstance(self.split, RandomSplit) else self.split.column
        return [name for name in (split_by, self.weight) if name is not None]

    @model_validator(mode="before")
    @classmethod
    def _usual_network(cls, said: Any) -> Any:
        if not isinstance(said, dict) or said.keys() & {"network", "encoding"}:
            return said
        is_scheduled = said_of(said.get("schedule")).keys() - {"seed"}
        if is_scheduled or (are_one_number(said.get("features")) and not said.get("exclude")):
            return said
        return {**said, "network": AutoNetwork()}

    @field_validator("schedule")
    @classmethod
    def _usual_optimizer(cls, schedule: Schedule, info: ValidationInfo) -> Schedule:
        if "optimizer" in schedule.model_fields_set:
            return schedule
        said = info.data
        inputs = [(each.kind, each.encoding) for each in said.get("features", ())]
        is_lesson = inputs == [("numeric", None)] and not (said.get("encoding") or said.get("exclude"))
        optimizer = "gd" if is_lesson or schedule.is_descent else "exact"
        if not isinstance(network := said.get("network"), Linear):
            optimizer = "adam" if isinstance(network, Mlp) else "exact"
        return Schedule.model_validate({**schedule.model_dump(exclude_unset=True), "optimizer": optimizer})

    @model_validator(mode="after")
    def _raw_or_encoded(self) -> Self:
        encodings = [
            ("numbers", self.encoding),
            *((repr(each.name), each.encoding) for each in self.features),
        ]
        for what, encoding in encodings:
            if encoding and self.schedule.normalize == "none":
                message = (
                    f"the encoding {encoding!r} of {what} does not go with normalize 'none', which leaves "
                    "inputs raw"
                )
                raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _says_what_is_heeded(self) -> Self:
        if isinstance(self.network, Linear | Mlp):
            return self
        unheeded = Schedule(optimizer="exact", seed=self.schedule.seed)
        said = [name for name, value in self.schedule if value != getattr(unheeded, name)]
        if isinstance(self.network, AutoNetwork) and self.encoding:
            said.append("encoding")
        if said:
            message = f"the network {self.network.kind!r} does not heed {said[0]!r}: leave it out"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        names = [self.target.name, *(feature.name for feature in self.features), *self.exclude]
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            message = f"the column {repeated[0]!r} is asked for twice: the target and every input must differ"
            raise ValueError(message)
        beside = [self.target.name, *self.beside]
        if len(set(beside)) < len(beside):
            message = "the target, the column that splits and the weight must be different columns"
            raise ValueError(message)
        asked = [(self.rare or 1, self.new_categories)]
        asked += [
            (self.rare_of(each), each.new_categories or self.new_categories)
            for each in self.features
            if each.kind == "categorical"
        ]
        if any(rare > 1 and new == "refuse" for rare, new in asked):
            message = (
                "rare categories become 'other', as which new ones are answered: do not refuse these as well"
            )
            raise ValueError(message)
        if self.schedule.optimizer == "exact" and isinstance(self.network, Mlp):
            message = "the optimizer 'exact' solves linear networks only; take 'adam' for an mlp"
            raise ValueError(message)
        return self


class RecipeFile(Part):
    """A TOML file: a recipe, the table it is for and the name of the model it makes."""

    data: Path
    name: str
    recipe: Recipe


def read_recipe(path: Path) -> RecipeFile:
    """Read a TOML file; raises RecipeInvalid naming the first field that is wrong."""
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"{path} cannot be read as a TOML recipe: {error}"
        raise RecipeInvalid(message) from None
    return parse_recipe(content, str(path))


def parse_recipe(content: bytes, where: str) -> RecipeFile:
    """Parse the bytes of a TOML file, which are from `where`; raises RecipeInvalid as `read_recipe` does."""
    try:
        fields = tomllib.loads(content.decode())
        head = {name: fields.pop(name) for name in ("data", "name") if name in fields}
        return RecipeFile.model_validate({**head, "recipe": fields}, strict=False)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        message = f"{where} cannot be read as a TOML recipe: {error}"
    except ValidationError as error:
        message = f"{where}: {first_fault(error)}"
    raise RecipeInvalid(message)


def make_recipe(fields: dict[str, Any]) -> Recipe:
    """A recipe from some of its fields; raises RecipeInvalid naming the first that is wrong or missing."""
    fields = {"target": {}, **fields}
    if "network" in fields:
        said = fields["network"]
        kind = "mlp" if "hidden" in said else "auto" if "minutes" in said else "linear"
        fields["network"] = {"kind": kind, **said}
    try:
        return Recipe.model_validate(fields, strict=False)
    except ValidationError as error:
        message = first_fault(error)
    raise RecipeInvalid(message)


def first_fault(error: ValidationError) -> str:
    """The field that is wrong and why."""
    fault = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, fault["loc"]))
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
