"""The torch side of a manifest's network: the same layers, under the same tensor names."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from model_store.encoding import Matrix
from model_store.manifest import Mlp, Network


class FeedForward(nn.Module):
    """Layers of the manifest's sizes with the activation between them, all float64.

    The initial weights depend on `seed` alone.
    """

    def __init__(self, network: Network, inputs: int, seed: int) -> None:
        super().__init__()
        sizes = (inputs, *network.layers)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(
                nn.Linear(fan_in, fan_out, dtype=torch.float64) for fan_in, fan_out in pairwise(sizes)
            )
        tanh = isinstance(network, Mlp) and network.activation == "tanh"
        self.activation = torch.tanh if tanh else torch.relu

    def forward(self, inputs: Tensor) -> Tensor:
        """From (n, inputs) to the predictions (n,)."""
        *hidden, last = self.layers
        for layer in hidden:
            inputs = self.activation(layer(inputs))
        outputs: Tensor = last(inputs)
        return outputs.squeeze(1)

    def tensors(self) -> dict[str, Matrix]:
        """The weights, named as `Description.tensor_shapes` names them."""
        return {name: tensor.detach().numpy().copy() for name, tensor in self.state_dict().items()}

    @torch.no_grad()
    def predict(self, inputs: Matrix) -> Matrix:
        """Predictions for an encoded matrix of shape (n, inputs); shape (n,)."""
        predictions: Matrix = self(torch.tensor(inputs)).numpy()
        return predictions
