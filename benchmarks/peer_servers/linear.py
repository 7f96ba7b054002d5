"""The one-input linear model that every peer serves, read from a JSON file: numpy and nothing else."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Linear:
    """A price for each car's kilometres, which are z-scored first."""

    feature: str
    mean: float
    std: float
    weight: float
    bias: float

    def predict(self, kilometres: Any) -> Any:
        """The prices, in an array of the same shape."""
        return (kilometres - self.mean) / self.std * self.weight + self.bias


def read(path: str) -> Linear:
    """The model in a file."""
    return Linear(**json.loads(Path(path).read_text(encoding="utf-8")))
