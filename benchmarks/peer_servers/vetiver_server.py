"""vetiver with this model in scikit-learn: `python -m benchmarks.peer_servers.vetiver_server MODEL PORT`.

https://rstudio.github.io/vetiver-python/stable/reference/VetiverAPI.html
"""

import sys

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from vetiver import VetiverAPI, VetiverModel

from benchmarks.peer_servers.linear import Linear, read


def pipeline(model: Linear) -> Pipeline:
    """The model as scikit-learn would have fitted it: on two cars a standard deviation from the mean."""
    cars = pd.DataFrame({model.feature: [model.mean - model.std, model.mean + model.std]})
    prices = np.array([model.bias - model.weight, model.bias + model.weight])
    return make_pipeline(StandardScaler(), LinearRegression()).fit(cars, prices)


if __name__ == "__main__":
    model = read(sys.argv[1])
    example = pd.DataFrame({model.feature: [53103.0]})
    served = VetiverModel(pipeline(model), model_name="cars", prototype_data=example)
    VetiverAPI(served, check_prototype=True).run(
        host="127.0.0.1", port=int(sys.argv[2]), quiet_open=True, access_log=False
    )
