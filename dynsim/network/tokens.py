"""Initial tokens: drawn on the sphere or from a Gaussian, or read from a file.

Sample s is drawn from its own stream of the seed, so it does not depend on how many samples there
are. Text becomes tokens in `dynsim.minilm`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dynsim._memory import require_memory
from dynsim._seeds import TOKENS as TOKEN_STREAM
from dynsim._seeds import stream
from dynsim._values import whole

__all__ = ["TOKENS", "from_file", "gaussian", "sphere"]


def gaussian(samples: int, n: int, d: int, seed: int = 0, first_sample: int = 0) -> np.ndarray:
    """Independent standard normal entries: (samples, n, d).

    The samples are those from number `first_sample` on: a part of a larger batch is drawn alone.
    Raises ValueError for sizes below 1, MemoryError for those that this machine cannot hold.

    >>> round(float(gaussian(4, 100, 100).std()), 2)
    1.0
    """
    for name, value in (("samples", samples), ("tokens", n), ("dimensions", d)):
        whole(f"number of {name}", value, least=1)
    first = whole("number of the first sample", first_sample, least=0)
    size = f"{samples} samples of {n} tokens of dimension {d}"
    require_memory(16.0 * samples * n * d, size, "use fewer samples, tokens or dimensions")
    x = np.empty((samples, n, d))
    for s in range(samples):
        x[s] = stream(seed, TOKEN_STREAM, first + s).standard_normal((n, d))
    return x


def sphere(samples: int, n: int, d: int, seed: int = 0, first_sample: int = 0) -> np.ndarray:
    """Uniform on the unit sphere: (samples, n, d), rows of norm 1. Samples and errors as those of
    `gaussian`.

    >>> bool(np.allclose(np.linalg.norm(sphere(2, 5, 3), axis=-1), 1))
    True
    """
    x = gaussian(samples, n, d, seed, first_sample)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


#: Every way to draw tokens by the name that the command line gives it.
TOKENS = {"gaussian": gaussian, "sphere": sphere}


def from_file(path: str | Path) -> np.ndarray:
    """Tokens (N, d) or (samples, N, d) from .npy, .npz (one array or "x0"), .csv or .safetensors.

    A CSV file has one token a line; a first line that is not numbers is a heading. Files are read
    without pickle. Raises ValueError when the file is missing, unreadable, or not finite numbers.
    """
    from dynsim._files import read_arrays

    array = read_arrays(path, prefer="x0")
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(
            f"{Path(path)}: tokens are (N, d) or (samples, N, d); got shape {array.shape}"
        )
    return array
