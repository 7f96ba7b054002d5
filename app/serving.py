"""A version made ready to answer: from the bytes of a request to the bytes of its answer."""

import json
from collections.abc import Iterable
from functools import cached_property
from http import HTTPStatus

import msgspec
import numpy as np

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
)
from model_store.answers import Answerer, Answers, Tally
from model_store.columns import Row, example_row
from model_store.explanation import explain
from model_store.manifest import Manifest
from model_store.versions import Version

OVERFLOW = "The inputs are so far outside their training range that the prediction overflows."
UNEXPLAINED = "The row has a prediction, but float64 cannot hold its explanation: ask without explain=true."


class Served:
    """Everything the routes need of one verified version, made once."""

    def __init__(self, version: Version, max_rows: int) -> None:
        self._predictor, self.answerer = version.predictor, Answerer(version.predictor)
        self._decoder = Decoder(version.manifest.features, max_rows)
        self.manifest: Manifest = version.manifest
        self.name, self.version = version.manifest.name, str(version.manifest.version)
        self.digest, self.report = version.digest, version.report
        self._interval = self.manifest.interval
        self.tenth = self.answerer.tenth
        self.encode = msgspec.json.Encoder().encode

    def predict(self, body: bytes) -> Prediction:
        """Answer the body of `POST /predict`; raises Refused."""
        return self._prediction(self._decoder.row(body))

    def predict_explained(self, body: bytes) -> ExplainedPrediction:
        """Answer the body of `POST /predict?explain=true`; raises Refused."""
        row = self._decoder.row(body)
        pairs = zip(self.manifest.features, row, strict=True)
        columns = {feature.name: feature.column([value]) for feature, value in pairs}
        prediction, explanation = self._prediction(row), explain(self._predictor, columns)
        if not explanation.is_finite:
            fault = Fault("", "a contribution is no finite number")
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, UNEXPLAINED, [fault])
        return ExplainedPrediction(
            **msgspec.structs.asdict(prediction),
            baseline=explanation.baseline,
            contributions=explanation.contributions,
        )

    def predict_batch(self, body: bytes) -> tuple[bytes, Tally]:
        """Answer the body of `POST /predict/batch`, encoded, and what to count of it; raises Refused."""
        columns, pointer = self._decoder.batch(body)
        answers, intervals = self.answerer.answer(columns), None
        refuse_overflown(answers, pointer)
        if self._interval and answers.lower is not None and answers.upper is not None:
            intervals = Intervals(self._interval.coverage, answers.lower, answers.upper)
        batch = BatchPrediction(answers.values, intervals, answers.out_of_range, self.name, self.version)
        return encode_numbers(batch), self.answerer.tally(answers)

    def _prediction(self, row: Row) -> Prediction:
        answer, residuals = self.answerer.answer_row(row), self._interval
        if not answer.is_finite:
            raise overflow([Fault("", "the prediction overflows")])
        interval = None
        if residuals is not None and answer.lower is not None and answer.upper is not None:
            interval = Interval(residuals.coverage, answer.lower, answer.upper)
        return Prediction(answer.value, interval, answer.out_of_range, self.name, self.version)

    @property
    def example(self) -> str:
        """The body of a request that is answered."""
        return json.dumps(example_row(self.manifest.features))

    @cached_property
    def model_body(self) -> bytes:
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


def refuse_overflown(answers: Answers, pointer: str) -> None:
    """Raise Refused (422) if float64 could not hold all of the answers, with `pointer` to row {}."""
    overflown = np.flatnonzero(~answers.finite)
    if overflown.size:
        raise overflow(Fault(pointer.format(row), f"row {row}'s prediction overflows") for row in overflown)


def overflow(faults: Iterable[Fault]) -> Refused:
    """What is raised (422) for rows whose predictions float64 cannot hold."""
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, OVERFLOW, faults)
