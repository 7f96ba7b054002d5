"""What documents of the store are made of: frozen, strict pieces, and the few that several kinds share."""

from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, model_validator

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# What JSON would have to escape in a member's name is left out, so that a name has one spelling.
COLUMN_NAME = r'^[^"\\\x00-\x1f]{1,200}$'
ColumnName = Annotated[str, Field(pattern=COLUMN_NAME)]
Deciles = Annotated[tuple[float, ...], Field(min_length=9, max_length=9)]


class Part(BaseModel):
    """A frozen, strict piece of a document."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        json_schema_serialization_defaults_required=True,  # a default is written out, so it is always there
    )


class Range(Part):
    """How a numeric column was spread over the training rows, in the column's own unit.

    `std` is the population's: sqrt(mean((x - mean)^2)).
    """

    mean: float
    std: PositiveFloat
    minimum: float
    maximum: float
    deciles: Deciles

    @model_validator(mode="after")
    def _ascending(self) -> Self:
        values = [self.minimum, *self.deciles, self.maximum]
        if values != sorted(values):
            message = "minimum, deciles and maximum do not ascend"
            raise ValueError(message)
        return self


def refuse_repeats(names: Iterable[str], what: str) -> None:
    """Raise ValueError if a name comes twice."""
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        message = f"the {what} {name!r} comes {count} times"
        raise ValueError(message)
