"""LayerNorm taken apart into projection and scaling (BRODY, arXiv 2305.02582, section 2)."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["FactoredNorm", "layer_norm", "rms_norm"]


class FactoredNorm(nn.Module):
    """y = gain * length c / sqrt(||c||^2 + d eps) + bias, c = a - mean(a) if `project`, else a.

    With projection and length sqrt(d) it is LayerNorm, with length sqrt(d) alone RMSNorm with a
    bias; without a length, y = gain * c + bias. `affine` gives it a gain and a bias to learn.
    """

    def __init__(
        self,
        d: int,
        project: bool,
        length: float | None,
        affine: bool = True,
        eps: float = 1e-5,
    ):
        super().__init__()
        self.project, self.length, self.shift = project, length, d * eps
        self.gain = nn.Parameter(torch.ones(d)) if affine else 1.0
        self.bias = nn.Parameter(torch.zeros(d)) if affine else 0.0

    def forward(self, a: torch.Tensor) -> torch.Tensor:  # (..., d) -> (..., d)
        if self.project:
            a = a - a.mean(dim=-1, keepdim=True)
        if self.length is not None:
            a = a * (self.length * (a.square().sum(dim=-1, keepdim=True) + self.shift).rsqrt())
        return self.gain * a + self.bias


def layer_norm(d: int) -> FactoredNorm:
    """LayerNorm with gain and bias."""
    return FactoredNorm(d, project=True, length=d**0.5)


def rms_norm(d: int) -> FactoredNorm:
    """RMSNorm with a gain, and with a bias too: it differs from `layer_norm` in one thing only."""
    return FactoredNorm(d, project=False, length=d**0.5)
