"""LitServe's quick start with this model: `python -m benchmarks.peer_servers.litserve_server MODEL PORT`.

https://lightning.ai/docs/litserve/get-started
"""

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from litserve import LitAPI, LitServer

from benchmarks.peer_servers.linear import read


class Prices(LitAPI):
    """The model behind /predict."""

    def setup(self, device: str) -> None:
        """Read the model, in the worker."""
        self.model = read(sys.argv[1])

    def predict(self, request: Mapping[str, Any]) -> dict[str, list[float]]:
        """The prices of a list of kilometres."""
        return {"output": self.model.predict(np.asarray(request["input"], np.float64)).tolist()}


if __name__ == "__main__":
    # `fast_queue` is advised from a hundred requests a second on.
    server = LitServer(Prices(), accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
