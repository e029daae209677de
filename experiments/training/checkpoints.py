"""The state of a training as one safetensors file: for going on later, and for the models in it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dynsim.results import written_whole

__all__ = ["Checkpoint"]


class Checkpoint:
    """The file at `path`, good only for the facts given here and the code of this package.

    What other settings, another seed, another torch or other code left there is not read, and is
    written over.
    """

    def __init__(self, path: Path, **facts):
        self.path = path
        here = Path(__file__).parent
        code = b"".join(source.read_bytes() for source in sorted(here.glob("*.py")))
        told = json.dumps(facts | {"torch": torch.__version__}, sort_keys=True).encode()
        self.mark = {"made_by": hashlib.sha256(told + code).hexdigest()}

    def load(self) -> dict[str, torch.Tensor] | None:
        """The tensors by name; None where there is nothing to go on from."""
        if not self.path.exists():
            return None
        with safe_open(self.path, "pt") as file:
            if file.metadata() != self.mark:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def save(self, tensors: dict[str, torch.Tensor]) -> None:
        with written_whole(self.path) as temporary:
            save_file(tensors, temporary, metadata=self.mark)
