"""What if: another mask or temperature, or no norm, skip or MLP, on a model's own weights."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from dynsim._values import Value, check_name, real_number, shown, whole
from dynsim.masks.constructors import MASKS, from_array
from dynsim.masks.networkx_view import compile_layout

if TYPE_CHECKING:
    from torch import nn

__all__ = ["VARIANTS", "Change"]


@dataclass(frozen=True, eq=False, repr=False)
class Change(Value):
    """What is to be different in the blocks of a model; its weights stay.

    A block is attention, then an MLP, each with its skip connection and norms. Changed, a sublayer
    computes x' = [norm] ([x +] f([norm] x)) without what is off.

    mask : networkx.DiGraph, array (N, N) or name, optional
        Who may attend to whom in self-attention; of an array, where [i, j] is not 0, i may attend
        to j. It **replaces** the model's own mask, causal, sliding or complete, so that the network
        is the one of the graph: a causal model is causal only under a causal mask, such as
        "causal-local". Padding stays masked: the mask is laid over the valid tokens of each text,
        the first of which is token 0, and a padded token attends to itself alone. So a padded text
        gives what it gives alone, a name of `dynsim.masks.MASKS` becomes a graph of each text's
        length, and a graph or an array fits texts of N valid tokens.
    mask_options : mapping, optional
        Parameters of a mask given by name, as {"window": 4}.
    norm : "off", optional
        Norms in the blocks return their input; gains and biases are left out too. What is no part
        of a block stays (the norm of the embeddings, the final norm), and so do norms of queries
        and keys.
    skip : "off", optional
        Attention and the MLP replace their input instead of being added to it.
    mlp : "off", optional
        The MLP is left out with its norm and its skip connection: a block is its attention.
    beta : float
        Inverse temperature of self-attention: softmax(beta scale Q K^T + bias), at least 0. A bias
        that depends on positions, as T5's, is not multiplied.

    Cross-attention stays whole, with its norm and its skip connection.

    Raises ValueError for anything else.

    >>> Change(mask="local", mask_options={"window": 4}, norm="off")
    Change(mask='local', mask_options=(('window', 4),), norm='off', skip=None, mlp=None, beta=1.0)
    """

    mask: Any = None
    mask_options: Any = ()
    norm: str | None = None
    skip: str | None = None
    mlp: str | None = None
    beta: float = 1.0

    def __post_init__(self) -> None:
        for name in ("norm", "skip", "mlp"):
            if getattr(self, name) not in (None, "off"):
                raise ValueError(f"{name} is 'off' or None; got {shown(getattr(self, name))}")
        beta = real_number("the inverse temperature beta", self.beta)
        if not 0 <= beta < np.inf:
            raise ValueError(f"the inverse temperature beta is finite and not negative; got {beta}")
        object.__setattr__(self, "beta", beta)
        if not isinstance(self.mask_options, (Mapping, tuple)):
            raise ValueError(
                f"mask_options are a mapping as {{'window': 4}}; got {shown(self.mask_options)}"
            )
        options = dict(self.mask_options)
        object.__setattr__(self, "mask_options", tuple(sorted(options.items())))
        if isinstance(self.mask, str):
            _check_named(self.mask, options)
        elif options:
            raise ValueError("mask_options are those of a mask given by name, such as 'local'")
        elif self.mask is not None:
            graph = self.mask if isinstance(self.mask, nx.Graph) else from_array(self.mask)
            object.__setattr__(self, "mask", _matrix(graph))
            self._freeze_array("mask", np.bool_)

    @property
    def active(self) -> bool:
        """False when nothing is changed."""
        return self != Change()

    def mask_of(self, n: int) -> np.ndarray:
        """The mask of a text of n tokens, (n, n) boolean: [i, j] is True when i may attend to j.

        Raises ValueError when the mask is of another size, or its parameters do not fit the length.

        >>> Change(mask="causal").mask_of(2)
        array([[ True, False],
               [ True,  True]])
        """
        if isinstance(self.mask, str):
            return _matrix(MASKS[self.mask](n, **dict(self.mask_options)))
        if len(self.mask) != n:
            raise ValueError(
                f"the mask is one of {len(self.mask)} tokens and a text has {n}; give texts of "
                f"{len(self.mask)} tokens without padding, or a mask by name, which fits any length"
            )
        return self.mask

    @contextmanager
    def applied(self, model: nn.Module, blocks: str | None = None) -> Iterator[None]:
        """A context in which a model computes so; after it, and after an error, all is as before.

        Hooks and a torch function mode do it: attention is changed where it is computed
        (`scaled_dot_product_attention`, a softmax of scores, `multi_head_attention_forward`), and a
        residual is an addition in a block to what the block received. No weight and no code is
        touched, gradients flow, and nothing changed sets no hook at all. To measure a changed model
        enter it inside `trace`: ``with trace(model) as t, change.applied(model): ...``.

        model : torch.nn.Module
            A transformer of Hugging Face with attn_implementation "eager" or "sdpa", or any module
            with a list of blocks.
        blocks : str, optional
            Name of the list of blocks to change; all that are found by default (of an
            encoder-decoder both).

        Raises ValueError for a model in which something asked for cannot be changed, or was not
        seen to be changed when it was called; also when it was not called at all.

        >>> with Change(mask="local", norm="off").applied(model):  # doctest: +SKIP
        ...     changed = model(**inputs)
        """
        if not self.active:
            yield
            return
        from dynsim.models.intervention import intervene

        with intervene(self, model, blocks):
            yield


#: WU's five variants (arXiv 2405.18781, Fig. 2) of a self-attention network (SAN).
VARIANTS = {
    "SAN": Change(norm="off", skip="off", mlp="off"),
    "SAN + skip": Change(norm="off", mlp="off"),
    "SAN + LN": Change(skip="off", mlp="off"),
    "SAN + skip + LN": Change(mlp="off"),
    "transformer": Change(),
}


def _check_named(name: str, options: Mapping[str, Any]) -> None:
    check_name("mask", name, MASKS)
    known = list(inspect.signature(MASKS[name]).parameters)[1:]
    for option, value in options.items():
        check_name(f"parameter of the mask {name}", option, known)
        whole(f"{option} of the mask {name}", value, least=0)


def _matrix(graph: nx.Graph) -> np.ndarray:
    rows = compile_layout(graph).to_rows()
    matrix = np.zeros((rows.n_tokens, rows.n_tokens), bool)
    matrix[rows.row_of_edge, rows.indices] = True
    return matrix
