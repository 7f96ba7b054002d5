"""What people write, FastAPI, pydantic, torch: `python -m benchmarks.template "async def" STORE PORT`."""

import sys
from typing import Any

import torch
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.contenders import NAME, listen
from model_store.store import Version, open_store


class Row(BaseModel):
    """One car."""

    Kilometers_Driven: float


class Batch(BaseModel):
    """Many."""

    instances: list[Row]


def template(version: Version, *, is_async: bool) -> FastAPI:
    """The application, as tutorials have it."""
    torch.set_num_threads(1)
    feature: Any = version.manifest.features[0]
    tensors = version.predictor.weights
    model = torch.nn.Linear(1, 1).double()
    model.load_state_dict(
        {part: torch.from_numpy(tensors[f"layers.0.{part}"]) for part in ("weight", "bias")}
    )
    model.eval()
    api = FastAPI()

    def infer(rows: list[Row]) -> list[float]:
        kilometres = torch.tensor([[row.Kilometers_Driven] for row in rows], dtype=torch.float64)
        with torch.no_grad():
            predictions: list[float] = model((kilometres - feature.mean) / feature.std)[:, 0].tolist()
        return predictions

    def predict(row: Row) -> dict[str, float]:
        return {"prediction": infer([row])[0]}

    def predict_batch(batch: Batch) -> dict[str, list[float]]:
        return {"predictions": infer(batch.instances)}

    async def predict_async(row: Row) -> dict[str, float]:
        return predict(row)

    async def predict_batch_async(batch: Batch) -> dict[str, list[float]]:
        return predict_batch(batch)

    api.post("/predict")(predict_async if is_async else predict)
    api.post("/predict/batch")(predict_batch_async if is_async else predict_batch)
    return api


if __name__ == "__main__":
    version = open_store(sys.argv[2]).load_promoted(NAME)
    listen(template(version, is_async=sys.argv[1] == "async def"), int(sys.argv[3]))
