"""The Muon optimizer for a CPU: matrices of one shape are orthogonalised together."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic Newton-Schulz iteration (Jordan et al. 2024, "Muon: an optimizer for hidden layers")."""
_ITERATIONS = 5
_MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """SGD with momentum whose update is replaced by the nearest orthogonal matrix; weight decay as in AdamW.

    torch.optim.Muon handles one matrix at a time: on a CPU most of its time goes into the calls.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], *, lr: float, weight_decay: float) -> None:
        super().__init__(list(params), {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[torch.nn.Parameter]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is not None:
                    shapes[tuple(matrix.shape)].append(matrix)
            for matrices in shapes.values():
                self._update(matrices, lr=group["lr"], weight_decay=group["weight_decay"])

    def _update(self, matrices: list[torch.nn.Parameter], *, lr: float, weight_decay: float) -> None:
        directions = orthogonalise(torch.stack([self._update_momentum(matrix) for matrix in matrices]))
        rows, columns = matrices[0].shape
        scale = max(1.0, rows / columns) ** 0.5
        for matrix, direction in zip(matrices, directions, strict=True):
            matrix.mul_(1 - lr * weight_decay).add_(direction, alpha=-lr * scale)

    def _update_momentum(self, matrix: torch.nn.Parameter) -> torch.Tensor:
        gradient = matrix.grad
        assert gradient is not None
        average = self.state[matrix].setdefault("momentum", torch.zeros_like(matrix))
        average.lerp_(gradient, 1 - _MOMENTUM)
        return gradient.lerp(average, _MOMENTUM)


def orthogonalise(stack: torch.Tensor) -> torch.Tensor:
    """Bring the singular values of each matrix of a (matrices, rows, columns) stack to between 0.7 and 1.2."""
    # The iteration multiplies by x @ x.mT, which is smaller for wide matrices: tall ones are transposed.
    tall = stack.shape[1] > stack.shape[2]
    x: torch.Tensor = stack.mT if tall else stack
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    a, b, c = _COEFFICIENTS
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * (square @ square)) @ x
    turned: torch.Tensor = x.mT
    return turned if tall else x
