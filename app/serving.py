"""A version made ready to answer: from the bytes of a request to the bytes of its answer."""

import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from itertools import pairwise
from math import isfinite

import msgspec
import numpy as np
from numpy.typing import NDArray

from app.decoding import Decoder
from app.refusals import Fault, Refused
from app.schemas import (
    BatchPrediction,
    ExplainedPrediction,
    Interval,
    Intervals,
    Prediction,
    ServedModel,
    encode_numbers,
    example_row,
)
from app.telemetry import Tally
from model_store.encoding import Columns, Matrix, Row, RowRanges, out_of_range
from model_store.explanation import explain
from model_store.manifest import Manifest
from model_store.store import Version

OVERFLOW = "The inputs are so far outside their training range that the prediction overflows."


@dataclass(frozen=True)
class Answers:
    """Predictions for n rows and their intervals' lower and upper bounds, each (n,), in the target's unit."""

    predictions: Matrix
    bounds: tuple[Matrix, Matrix] | None

    @property
    def finite(self) -> NDArray[np.bool_]:
        """The rows, (n,), that float64 could hold all of."""
        finite = np.isfinite(self.predictions)
        for bound in self.bounds or ():
            finite &= np.isfinite(bound)
        return finite


class Served:
    """Everything the routes need of one verified version, made once."""

    def __init__(self, version: Version, max_rows: int) -> None:
        self._predictor = version.predictor
        self._decoder = Decoder(version.manifest.features, max_rows)
        self.manifest: Manifest = version.manifest
        self.name, self.version = version.manifest.name, str(version.manifest.version)
        self.digest, self.report = version.digest, version.report
        self._ranges, self._interval = RowRanges(self.manifest.features), self.manifest.interval
        self._deciles = self.manifest.target.deciles
        self._is_transformed = self.manifest.target.transform != "none"
        self.encode = msgspec.json.Encoder().encode

    def predict(self, body: bytes) -> Prediction:
        """Answer the body of `POST /predict`; raises Refused."""
        return self._prediction(self._decoder.row(body))

    def explain(self, body: bytes) -> ExplainedPrediction:
        """Answer the body of `POST /predict?explain=true`; raises Refused."""
        row = self._decoder.row(body)
        names = [feature.name for feature in self.manifest.features]
        columns = {name: [value] for name, value in zip(names, row, strict=True)}
        prediction, explanation = self._prediction(row), explain(self._predictor, columns)
        return ExplainedPrediction(
            **msgspec.structs.asdict(prediction),
            baseline=explanation.baseline,
            contributions=explanation.contributions,
        )

    def tenth(self, prediction: float) -> int:
        """The tenth of the training target, from 0, in which a prediction lies."""
        return bisect_left(self._deciles, prediction)

    def predict_batch(self, body: bytes) -> tuple[bytes, Tally]:
        """Answer the body of `POST /predict/batch`, encoded, and what to count of it; raises Refused."""
        columns, pointer = self._decoder.batch(body)
        answers, intervals = self._finite_answers(columns, pointer), None
        if answers.bounds and self.manifest.interval:
            lower, upper = answers.bounds
            intervals = Intervals(self.manifest.interval.coverage, lower, upper)
        outside = out_of_range(self.manifest.features, columns)
        batch = BatchPrediction(answers.predictions, intervals, outside, self.name, self.version)
        return encode_numbers(batch), self.tally(answers.predictions, outside)

    def tally(self, predictions: Matrix, outside: Mapping[str, Sequence[int]], refused: int = 0) -> Tally:
        """What there is to count of n rows that were predicted, (n,), and others that were refused."""
        below = [int(np.count_nonzero(predictions <= bound)) for bound in self._deciles]
        tenths = [upper - lower for lower, upper in pairwise([0, *below, len(predictions)])]
        return Tally(tenths, {name: len(rows) for name, rows in outside.items()}, refused)

    def answers(self, columns: Columns) -> Answers:
        """Predict n rows; an input far outside its training range may overflow to an infinity."""
        outputs, interval = self._predictor.outputs(columns), self.manifest.interval
        in_unit = self._predictor.in_unit
        if interval is None:
            return Answers(in_unit(outputs), None)
        bounds = in_unit(outputs + interval.lower), in_unit(outputs + interval.upper)
        return Answers(in_unit(outputs), bounds)

    def _prediction(self, row: Row) -> Prediction:
        residuals, interval = self._interval, None
        prediction = lower = upper = self._predictor.row_output(row)
        if residuals is not None:
            lower, upper = prediction + residuals.lower, prediction + residuals.upper
        if self._is_transformed:
            lower, prediction, upper = map(float, map(self._predictor.in_unit, (lower, prediction, upper)))
        # The sum is finite if all are, unless they are so large that each has to be looked at.
        if not isfinite(lower + prediction + upper) and not all(map(isfinite, (lower, prediction, upper))):
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, OVERFLOW, [Fault("", "the prediction overflows")])
        if residuals is not None:
            interval = Interval(residuals.coverage, lower, upper)
        outside = self._ranges.outside(row)
        return Prediction(prediction, interval, outside, self.name, self.version)

    def _finite_answers(self, columns: Columns, pointer: str) -> Answers:
        """Predict n rows; raises Refused (422) for those that overflow, with `pointer` to row {}."""
        answers = self.answers(columns)
        overflown = np.flatnonzero(~answers.finite)
        if overflown.size:
            faults = (Fault(pointer.format(row), f"row {row}'s prediction overflows") for row in overflown)
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, OVERFLOW, faults)
        return answers

    @property
    def example(self) -> str:
        """The body of a request that is answered."""
        return json.dumps(example_row(self.manifest.features))

    @cached_property
    def description(self) -> bytes:
        """The body of `GET /model`: what is served."""
        manifest = self.manifest
        served = ServedModel(
            **manifest.model_dump(include=ServedModel.model_fields.keys() - {"version", "digest"}),
            version=self.version,
            digest=self.digest,
        )
        return served.model_dump_json().encode()

    @property
    def sentence(self) -> str:
        """What the model predicts from what."""
        inputs = ", ".join(feature.name for feature in self.manifest.features)
        unit = f" ({self.manifest.target.unit})" if self.manifest.target.unit else ""
        return f"Predicts {self.manifest.target.name}{unit} from {inputs}."
