"""What a norm does to the tokens of a model: their lengths, their rotation, their angle to **1**.

LayerNorm takes out the component along the vector of ones, divides by the length and scales (GUPTA,
arXiv 2409.12951): where hidden states are at right angles to that vector already, it does no more
than RMSNorm.
"""

from __future__ import annotations

import torch

__all__ = ["NORM", "norm_statistics"]

#: What is measured of a norm, by name.
NORM = {
    "norm_before": "median norm of a token before",
    "norm_after": "median norm of a token after",
    "rotation": "angle between a token before and after, mean over tokens (degrees)",
    "angle_before": "angle to the vector of ones before, mean over tokens (degrees)",
    "angle_after": "angle to the vector of ones after, mean over tokens (degrees)",
}


def norm_statistics(before: torch.Tensor, after: torch.Tensor) -> dict[str, float]:
    """All of NORM for the tokens of one text, (N, d) each; 90 degrees for a token of size 0.

    >>> found = norm_statistics(torch.tensor([[1.0, 3.0]]), torch.tensor([[-1.0, 1.0]]))
    >>> round(found["rotation"], 2), round(found["angle_after"], 2)
    (63.43, 90.0)
    """
    x, y = (z.to(torch.promote_types(z.dtype, torch.float32)) for z in (before, after))
    sizes, sizes_after = x.norm(dim=-1), y.norm(dim=-1)
    root = x.shape[-1] ** 0.5
    return {
        "norm_before": float(sizes.median()),
        "norm_after": float(sizes_after.median()),
        "rotation": _mean_angle((x * y).sum(dim=-1), sizes * sizes_after),
        "angle_before": _mean_angle(x.sum(dim=-1), sizes * root),
        "angle_after": _mean_angle(y.sum(dim=-1), sizes_after * root),
    }


def _mean_angle(products: torch.Tensor, sizes: torch.Tensor) -> float:
    cosines = torch.where(sizes > 0, products / sizes, 0.0).clamp(-1, 1)
    return float(cosines.double().arccos().rad2deg().mean())
