"""A step of BiLO and of a PINN in PyTorch, nested reverse mode, for Fisher-KPP."""

import math
import time
from typing import Any

import numpy as np

DIFFUSION = 0.01


def available() -> bool:
    """Whether PyTorch is installed."""
    try:
        import torch  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        return False
    return True


class TorchStep:
    """The published step: both gradients, then AMSGrad for weights and parameters.

    Attributes:
        version: Of PyTorch.
    """

    def __init__(
        self,
        weights: list[tuple[np.ndarray, np.ndarray]],
        embedding: np.ndarray | None,
        collocation: np.ndarray,
        places: np.ndarray,
        readings: np.ndarray,
        *,
        weight: float,
        threads: int,
    ) -> None:
        """Take over a network.

        Args:
            weights: Weight, of shape (input, output), and bias of each layer.
            embedding: The frozen embedding of both parameters; None for a PINN.
            collocation: Points of the residual.
            places: Points of the readings.
            readings: What was read there.
            weight: Of the residual gradient, or of the readings of a PINN.
            threads: Of PyTorch.
        """
        import torch  # pyright: ignore[reportMissingImports]

        torch.set_num_threads(threads)
        self.torch: Any = torch
        self.version = str(torch.__version__)
        self.weight = weight

        def tensor(values: Any, *, trained: bool = False) -> Any:
            found = torch.tensor(np.array(values), dtype=torch.float32)
            return found.requires_grad_(trained)

        self.layers = [(tensor(w, trained=True), tensor(b, trained=True)) for w, b in weights]
        self.embedding = None if embedding is None else tensor(embedding)
        self.points, self.places = tensor(collocation), tensor(places)
        self.readings = tensor(readings)
        self.theta = tensor(np.ones(2), trained=True)
        own = [leaf for layer in self.layers for leaf in layer]
        self.descent = torch.optim.Adam(own, lr=1e-3, amsgrad=True)
        self.search = torch.optim.Adam([self.theta], lr=1e-3, amsgrad=True)

    def solution(self, x: Any, t: Any, theta: Any) -> Any:
        """The density at points, from parameters for each."""
        torch = self.torch
        weight, bias = self.layers[0]
        hidden = torch.cat([x, t], dim=1) @ weight + bias
        if self.embedding is not None:
            hidden = hidden + theta @ self.embedding
        for weight, bias in self.layers[1:]:
            hidden = torch.tanh(hidden) @ weight + bias
        return 0.5 * torch.sin(math.pi * x) ** 2 + x * (1.0 - x) * t * hidden

    def equation_loss(self) -> Any:
        """Residual, and for BiLO its gradient by the parameters at each point."""
        torch, local = self.torch, self.embedding is not None
        x = self.points[:, :1].clone().requires_grad_(True)
        t = self.points[:, 1:].clone().requires_grad_(True)
        theta = self.theta.detach().expand(len(x), 2).clone() if local else self.theta[None]
        if local:
            theta.requires_grad_(True)
        u = self.solution(x, t, theta)
        u_x, u_t = torch.autograd.grad(u.sum(), (x, t), create_graph=True)
        (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
        r = u_t - DIFFUSION * theta[:, :1] * u_xx - theta[:, 1:] * u * (1.0 - u)
        loss = torch.mean(r**2)
        if not local:
            return loss
        (slopes,) = torch.autograd.grad(r.sum(), theta, create_graph=True)
        return loss + self.weight * torch.mean(torch.sum(slopes**2, dim=1))

    def data_loss(self) -> Any:
        """Mean square of readings minus predictions."""
        x, t = self.places[:, :1], self.places[:, 1:]
        u = self.solution(x, t, self.theta[None].expand(len(x), 2))
        return self.torch.mean((u - self.readings) ** 2)

    def loss(self) -> Any:
        """What the weights make small."""
        loss = self.equation_loss()
        return loss if self.embedding is not None else loss + self.weight * self.data_loss()

    def step(self) -> None:
        """Both levels at once, or a PINN's single one."""
        self.descent.zero_grad()
        self.search.zero_grad()
        if self.embedding is None:
            self.loss().backward()
        else:
            weights = [leaf for layer in self.layers for leaf in layer]
            (upper,) = self.torch.autograd.grad(self.data_loss(), self.theta)
            lower = self.torch.autograd.grad(self.loss(), weights, allow_unused=True)
            self.theta.grad = upper
            for leaf, slope in zip(weights, lower, strict=True):
                leaf.grad = slope
        self.descent.step()
        self.search.step()

    def run(self, steps: int) -> float:
        """Seconds of so many steps."""
        began = time.perf_counter()
        for _ in range(steps):
            self.step()
        return time.perf_counter() - began
