"""What people write, FastAPI, pydantic, torch: `python -m benchmarks.template "async def" MODEL.json PORT`.

It stands alone, as theirs does: it imports nothing of the project, and the model's numbers come from a file.
"""

import json
import sys
from pathlib import Path

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Row(BaseModel):
    """One car."""

    Kilometers_Driven: float


class Batch(BaseModel):
    """Many."""

    instances: list[Row]


def template(numbers: dict[str, float], *, is_async: bool) -> FastAPI:
    """The application, as tutorials have it."""
    torch.set_num_threads(1)
    model = torch.nn.Linear(1, 1).double()
    weights = {"weight": [[numbers["weight"]]], "bias": [numbers["bias"]]}
    model.load_state_dict({name: torch.tensor(values) for name, values in weights.items()})
    model.eval()
    api = FastAPI()

    def infer(rows: list[Row]) -> list[float]:
        kilometres = torch.tensor([[row.Kilometers_Driven] for row in rows], dtype=torch.float64)
        with torch.no_grad():
            z_scores = (kilometres - numbers["mean"]) / numbers["std"]
            predictions: list[float] = model(z_scores)[:, 0].tolist()
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
    api = template(json.loads(Path(sys.argv[2]).read_text()), is_async=sys.argv[1] == "async def")
    uvicorn.run(
        api, port=int(sys.argv[3]), loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
