"""KServe's own model server with this model: `python -m benchmarks.peer_servers.kserve_server MODEL PORT`.

https://kserve.github.io/website/latest/modelserving/v1beta1/custom/custom_model/
"""

import sys

from kserve import InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import get_predict_response

from benchmarks.peer_servers.linear import Linear, read


class Prices(Model):
    """The model behind /v2/models/cars/infer."""

    def __init__(self, model: Linear) -> None:
        super().__init__("cars")
        self.model = model
        self.ready = True

    def predict(self, payload: InferRequest, headers: dict[str, str] | None = None) -> InferResponse:
        """The prices of one tensor of kilometres."""
        return get_predict_response(payload, self.model.predict(payload.inputs[0].as_numpy()), self.name)


class LocalServer(ModelServer):
    """KServe's server has no option for the address, and listens on every one without this."""

    def setup_event_loop(self) -> None:
        """The last step before it listens."""
        super().setup_event_loop()
        config = self._rest_server.config
        config.host, config.access_log = "127.0.0.1", False


if __name__ == "__main__":
    server = LocalServer(
        http_port=int(sys.argv[2]), workers=1, enable_grpc=False, enable_latency_logging=False
    )
    server.start([Prices(read(sys.argv[1]))])
