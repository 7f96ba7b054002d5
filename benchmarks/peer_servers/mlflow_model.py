"""A model from code for MLflow; `mlflow_save` puts it into a folder for `mlflow models serve`.

https://mlflow.org/docs/latest/python_api/mlflow.pyfunc.html
"""

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

from benchmarks.peer_servers.linear import read


class Prices(PythonModel):
    """The model behind /invocations."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the model."""
        self.model = read(context.artifacts["model"])

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> Any:
        """The prices of a table of one column."""
        return self.model.predict(model_input[self.model.feature].to_numpy())


set_model(Prices())
