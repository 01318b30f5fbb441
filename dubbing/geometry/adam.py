"""Adam without torch's compiler."""

from __future__ import annotations

import torch
from torch import Tensor


class Adam:
    """Adam (Kingma and Ba, 2015) for one tensor, as `torch.optim.Adam` computes it. That class
    brings torch's compiler with it, which takes 1.6 s to import."""

    def __init__(self, value: Tensor, rate: float, betas: tuple[float, float] = (0.9, 0.999)):
        self.value, self.rate, self.betas = value, rate, betas
        self._mean, self._square = torch.zeros_like(value), torch.zeros_like(value)
        self._steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Move against the gradient, and forget it."""
        gradient = self.value.grad
        if gradient is None:
            return
        self._steps += 1
        first, second = (1 - beta**self._steps for beta in self.betas)
        self._mean.lerp_(gradient, 1 - self.betas[0])
        self._square.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        spread = (self._square.sqrt() / second**0.5).add_(1e-8)
        self.value.addcdiv_(self._mean, spread, value=-self.rate / first)
        self.value.grad = None
