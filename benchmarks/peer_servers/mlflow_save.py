"""Save the model for `mlflow models serve`: `python -m benchmarks.peer_servers.mlflow_save MODEL FOLDER`."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from mlflow.models import infer_signature
from mlflow.pyfunc import save_model

from benchmarks.peer_servers.linear import read


def main() -> None:
    """Save it with its signature, as MLflow advises."""
    source, folder = sys.argv[1:]
    model = read(source)
    cars = pd.DataFrame({model.feature: np.array([53103.0])})
    save_model(
        folder,
        python_model=str(Path(__file__).with_name("mlflow_model.py")),
        artifacts={"model": source},
        signature=infer_signature(cars, model.predict(cars[model.feature].to_numpy())),
        pip_requirements=["mlflow"],
    )


if __name__ == "__main__":
    main()
