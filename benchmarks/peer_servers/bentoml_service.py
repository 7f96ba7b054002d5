"""A service for `bentoml serve`, the model's file in the environment variable MODEL.

https://docs.bentoml.com/en/latest/build-with-bentoml/iotypes.html
"""

import os

import bentoml
import numpy as np

from benchmarks.peer_servers.linear import read


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Prices:
    """The model behind /predict."""

    def __init__(self) -> None:
        self.model = read(os.environ["MODEL"])

    @bentoml.api
    def predict(self, cars: np.ndarray) -> np.ndarray:
        """The prices of an array of kilometres."""
        return np.asarray(self.model.predict(cars))
