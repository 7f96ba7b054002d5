"""A custom runtime for `mlserver start`, which is told of it by environment variables.

https://docs.seldon.ai/mlserver/user-guide/custom
"""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import decode_args
from mlserver.utils import get_model_uri

from benchmarks.peer_servers.linear import read


class Prices(MLModel):
    """The model behind /v2/models/…/infer."""

    async def load(self) -> bool:
        """Read the model."""
        self.model = read(await get_model_uri(self.settings))
        return True

    @decode_args
    async def predict(self, cars: np.ndarray) -> np.ndarray:
        """The prices of one tensor of kilometres; the annotations choose its codecs."""
        return np.asarray(self.model.predict(cars))
