"""A version made ready to answer: from the bytes of a request to the bytes of its answer."""

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import numpy as np
from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from app.decoding import Decoder
from app.problems import Fault, Refused
from app.schemas import BatchPrediction, Interval, Intervals, Prediction, ServedModel, components, example_row
from model_store.encoding import Columns, Matrix, out_of_range
from model_store.store import Version, open_store


class Served:
    """Everything the routes need of one verified version, made once."""

    def __init__(self, version: Version) -> None:
        self._manifest = version.manifest
        self.name, self.version = version.manifest.name, str(version.manifest.version)
        self.digest = version.digest
        self._predictor = version.predictor
        self._decoder = Decoder(version.manifest.features)

    def predict(self, body: bytes) -> bytes:
        """Answer the body of `POST /predict`; raises Refused."""
        columns = self._decoder.row(body)
        predictions, intervals = self._compute(columns)
        interval = Interval(intervals.coverage, intervals.lower[0], intervals.upper[0]) if intervals else None
        outside = list(out_of_range(self._manifest.features, columns))
        return msgspec.json.encode(Prediction(predictions[0], interval, outside, self.name, self.version))

    def predict_batch(self, body: bytes) -> bytes:
        """Answer the body of `POST /predict/batch`; raises Refused."""
        columns = self._decoder.batch(body)
        predictions, intervals = self._compute(columns)
        outside = out_of_range(self._manifest.features, columns)
        return msgspec.json.encode(BatchPrediction(predictions, intervals, outside, self.name, self.version))

    def _compute(self, columns: Columns) -> tuple[list[float], Intervals | None]:
        outputs = self._predictor.outputs(columns)
        predictions = self._predictor.in_unit(outputs)
        interval = self._manifest.interval
        if interval is None:
            check_finite(predictions)
            return predictions.tolist(), None
        lower, upper = (
            self._predictor.in_unit(outputs + shift) for shift in (interval.lower, interval.upper)
        )
        check_finite(predictions, lower, upper)
        return predictions.tolist(), Intervals(interval.coverage, lower.tolist(), upper.tolist())

    @property
    def example(self) -> str:
        """The body of a request that is answered."""
        return json.dumps(example_row(self._manifest.features))

    def describe(self) -> ServedModel:
        """What is served."""
        manifest = self._manifest
        return ServedModel(
            **manifest.model_dump(include=ServedModel.model_fields.keys() - {"version", "digest"}),
            version=self.version,
            digest=self.digest,
        )

    def openapi(self, routes: Sequence[BaseRoute]) -> dict[str, Any]:
        """The OpenAPI document of the application's routes for this version's inputs."""
        target, inputs = self._manifest.target, [feature.name for feature in self._manifest.features]
        document = get_openapi(
            title=self.name,
            version=self.version,
            description=f"Predicts {target.name} from {', '.join(inputs)}. Served by Plumbline.",
            servers=[{"url": "."}],
            routes=routes,
        )
        document["components"]["schemas"] |= components(self._manifest.features)
        return document


def load_served(url: str, name: str | None) -> Served:
    """Load and verify the promoted version of a model, by default of the store's only one."""
    store = open_store(url)
    return Served(store.load_promoted(name or store.only_model()))


def check_finite(*answers: Matrix) -> None:
    """Refuse inputs so extreme that float64 cannot hold an answer of shape (n,); raises Refused."""
    overflown = np.flatnonzero(~np.isfinite(answers).all(axis=0))
    if overflown.size:
        detail = "The inputs are so far outside their training range that the prediction overflows."
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY, detail, [Fault("", f"row {row} overflows") for row in overflown]
        )
