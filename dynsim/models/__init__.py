"""Models: real transformers, measured layer by layer and turned into dynamics.

`dynsim.probe` runs a model and measures its hidden states and attention, `dynsim.trace` does while
other code runs it, and `dynsim.measure` takes hidden states that are at hand: each gives a
`Profile`. `record` keeps the tokens and attention of one text. A `Change` asks what another mask,
norm or temperature would do to the model. `dynamics` turns the blocks of a model into an
`AttentionDynamics`, and `embeddings` gives the tokens that it starts from. `load_model` finds a
model by its name, `excerpts` makes its inputs of text. All but `minilm`, a small reader of
all-MiniLM-L6-v2, need torch, which is loaded when the first of these names is used.
"""

from importlib import import_module
from typing import Any

#: Where each public name lives.
_NAMES = {
    "Change": "change",
    "Profile": "profile",
    "dynamics": "conversion",
    "embeddings": "conversion",
    "excerpts": "texts",
    "load_model": "sources",
    "load_profile": "profile",
    "measure": "probing",
    "probe": "probing",
    "record": "recording",
    "trace": "tracing",
}

__all__ = [*_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"dynsim.models has no {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(f"dynsim.models.{_NAMES[name]}"), name)
    globals()[name] = value  # found at once the next time, and by pdoc
    return value
