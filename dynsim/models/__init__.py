"""Models: real transformers as dynamics.

`dynamics` turns the blocks of a model of the package transformers into an `AttentionDynamics`, and
`embeddings` gives the tokens that it starts from; torch is loaded when the first of them is used.
`minilm` reads all-MiniLM-L6-v2 without torch.
"""

from importlib import import_module
from typing import Any

#: Where each public name lives.
_NAMES = {
    "dynamics": "conversion",
    "embeddings": "conversion",
}

__all__ = [*_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"dynsim.models has no {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"dynsim.models.{_NAMES[name]}"), name)
