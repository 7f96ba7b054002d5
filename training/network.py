"""The torch side of a manifest's network: the same layers, under the same tensor names."""

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn

from model_store.columns import Matrix
from model_store.manifest import Mlp, Network


class FeedForward(nn.Module):
    """Layers of the manifest's sizes with the activation between them, all float64.

    The initial weights depend on `seed` alone.
    """

    def __init__(self, network: Network, inputs: int, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            layers = [
                nn.Linear(fan_in, fan_out, dtype=torch.float64)
                for fan_in, fan_out in pairwise((inputs, *network.layers))
            ]
        self.shape = network
        self.layers = nn.ModuleList(layers)
        self.hidden, self.ends = layers[:-1], (layers[0], layers[-1])
        tanh = isinstance(network, Mlp) and network.activation == "tanh"
        self.activation = torch.tanh if tanh else torch.relu

    def forward(self, inputs: Tensor) -> Tensor:
        """From (n, inputs) to the outputs (n, 1)."""
        for layer in self.hidden:
            inputs = self.activation(layer(inputs))
        outputs: Tensor = self.ends[1](inputs)
        return outputs

    def tensors(self) -> dict[str, Matrix]:
        """A copy of the weights, named as `Description.tensor_shapes` names them."""
        return {name: tensor.numpy().copy() for name, tensor in self.state_dict().items()}

    def load(self, tensors: Mapping[str, Matrix]) -> None:
        """Take weights, named as `tensors` names them."""
        self.load_state_dict({name: torch.tensor(tensor) for name, tensor in tensors.items()})

    @torch.no_grad()
    def outputs(self, inputs: Matrix) -> Matrix:
        """The outputs for an encoded matrix of shape (n, inputs); shape (n,)."""
        outputs: Matrix = self(torch.tensor(inputs))[:, 0].numpy()
        return outputs

    @torch.no_grad()
    def set_line(self, weights: Tensor) -> None:
        """Take the weights of a line, the bias last: shape (inputs + 1,)."""
        line, _ = self.ends
        line.weight[0] = weights[:-1]
        line.bias[0] = weights[-1]

    @torch.no_grad()
    def rescale_inputs(self, mean: Matrix, std: Matrix) -> None:
        """Turn a network for raw inputs x into the same one for (x - mean) / std, each of shape (inputs,)."""
        first, _ = self.ends
        first.bias.add_(first.weight @ torch.tensor(mean))
        first.weight.mul_(torch.tensor(std))

    @torch.no_grad()
    def rescale_outputs(self, mean: float, std: float) -> None:
        """Turn a network for the target (y - mean) / std into the same one for y."""
        _, last = self.ends
        last.weight.mul_(std)
        last.bias.mul_(std).add_(mean)
