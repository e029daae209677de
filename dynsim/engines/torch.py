"""The same dynamics in torch: batched, on CPU or GPU, in the precision of the tokens.

The state stays on the device while layers are advanced; weights go over once a layer, or once if
they are shared, and measures come back once. Attention (`dynsim.engines.torch_attention`) runs
over the tiles of the mask, so many samples, heads and tiles at a time as a budget of memory allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dynsim._threads import torch_threads
from dynsim.engines.base import Advanced, TokenEngine
from dynsim.engines.torch_attention import (
    KINDS,
    Edges,
    Piece,
    Tiled,
    fused,
    is_tame,
    joined,
    softmax,
)
from dynsim.measures import CHEAP
from dynsim.network.dynamics import AttentionDynamics
from dynsim.network.gates import GateWeights
from dynsim.network.norms import ElementwiseNorm, Norm
from dynsim.network.parts import unusual_parts
from dynsim.network.positions import RoPE
from dynsim.network.weights import LayerWeights

__all__ = ["TorchEngine", "devices", "find_device"]

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "relu": torch.relu,
    "swiglu": lambda x: functional.silu(x[..., : x.shape[-1] // 2]) * x[..., x.shape[-1] // 2 :],
}  # fmt: skip

#: The functions of element-wise norms.
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": torch.tanh, "erf": torch.erf}

#: Bytes of temporaries on a CPU: what fits in its caches is faster than what fits in memory.
_CPU_BUDGET = 2**24


def devices() -> list[str]:
    """The devices of this machine by the names that `find_device` knows."""
    cuda = [f"cuda:{k}" for k in range(torch.cuda.device_count())]
    names = ["auto", "cpu", *(["cuda"] if cuda else []), *cuda]
    return [*names, "mps"] if torch.backends.mps.is_available() else names


def find_device(name: str | None) -> torch.device:
    """The device of this name; "auto", or None, is the first CUDA GPU, or the CPU without one.

    Raises ValueError when there is no such device here.
    """
    name = "auto" if name is None else name
    if name not in devices():
        raise ValueError(
            f"there is no device {name!r} here; torch {torch.__version__} finds "
            f"{', '.join(devices())}"
        )
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


class _Heads(NamedTuple):
    """`LayerWeights` on the device, the heads side by side: one product makes all queries."""

    n_heads: int
    query: Tensor  # (d, H p)
    query_bias: Tensor | None  # (H p,); None for zeros
    key: Tensor | None  # (d, H p); None for the identity
    value: Tensor | None  # (d, H q); None for the identity
    output: Tensor  # (H q, d)
    output_bias: Tensor | None  # (d,); None for zeros
    gate: tuple[Tensor, Tensor] | None  # (d, H q) and (H q,), or 1 for q; None without gates


class TorchEngine(TokenEngine):
    """Batched torch on one device. The same call gives the same bits on the same machine.

    Parameters
    ----------
    dynamics : AttentionDynamics
    threads : int
        Of torch on the CPU, while this engine works.
    device : torch.device
        From `find_device`.

    Raises
    ------
    ValueError
        When advanced from float64 tokens on a device that has no float64 (mps).
    MemoryError
        When the tokens do not fit on the GPU.
    """

    packages = ("torch",)

    def __init__(self, dynamics: AttentionDynamics, threads: int, device: torch.device):
        self.dynamics, self.threads, self._device = dynamics, threads, device
        self.budget = _budget(self._device)
        layout = dynamics.layout
        self._tiled = Tiled(layout, self.put, with_edges=bool(dynamics.dropout.attention))
        self._plain = not {"position", "kind"} & set(unusual_parts(dynamics))
        by_edges = Edges.are_cheaper(layout, self._tiled, device)
        self._edges = Edges(layout, self.put) if by_edges else None
        self._held: dict = {}

    @property
    def device(self) -> str:
        """Where it runs: the name of the device, and the model of a GPU."""
        if self._device.type == "cuda":
            return f"{self._device} ({torch.cuda.get_device_name(self._device)})"
        return str(self._device)

    def advance(self, x: np.ndarray, start: int, stop: int, entropy: bool = False) -> Advanced:
        with self._running():
            state = self._tokens(x)
            at_once = self._samples_at_once(state, start)
            parts, numbers = list(state.split(at_once)), self.numbers(len(state))
            entropies, observed = None, []
            if entropy:
                heads, _ = self._weights(start, state)
                found = torch.cat([self._entropy(part, heads, start) for part in parts])
                entropies = found.cpu().numpy().astype(float)
            weights = cache(lambda t: self._weights(t, state))
            for k, part in enumerate(parts):  # a part stays in cache from layer to layer
                these, seen = numbers[k * at_once : (k + 1) * at_once], []
                for t in range(start, stop):
                    part = self._layer(part, *weights(t), t, these)
                    seen.append(_observe(part))
                parts[k] = part
                observed.append(torch.stack(seen, dim=-1))
            measured = joined(observed, 1).cpu().numpy().astype(float)
            return joined(parts, 0).cpu().numpy(), measured, entropies

    @contextmanager
    def _running(self) -> Iterator[None]:
        """No gradients, the threads asked for and whole float32 products, for a while."""
        try:
            with torch_threads(self.threads), torch.inference_mode(), _whole_products():
                yield
        except torch.cuda.OutOfMemoryError as error:
            raise MemoryError(str(error)) from None

    # --- what goes over -------------------------------------------------------------------------

    def put(self, array: Any, dtype: torch.dtype | None = None) -> Any:
        if array is None:
            return None
        tensor = torch.tensor(array, dtype=dtype)
        if self._device.type != "cuda":
            return tensor.to(self._device)
        return tensor.pin_memory().to(self._device, non_blocking=True)  # while the GPU computes

    def _tokens(self, x: np.ndarray) -> Tensor:
        if self._device.type == "mps" and x.dtype == np.float64:
            raise ValueError(
                "mps has no float64; give float32 tokens, x0.astype(numpy.float32), or use the cpu"
            )
        return self.put(x)

    def _weights(self, t: int, like: Tensor) -> tuple[_Heads, Any]:
        """Attention's and the MLP's weights of layer t on the device."""
        d = like.shape[-1]
        layer = self.dynamics.weights.layer(t, d)
        heads = self._kept("attention", layer, like.dtype, self._heads)
        if self.dynamics.gate.active:
            gate = self.dynamics.gate_of(layer, t)
            heads = heads._replace(gate=self._kept("gate", gate, like.dtype, self._gate))
        mlp = self.dynamics.mlp
        if not mlp.active:
            return heads, None
        return heads, self._kept("mlp", mlp.layer(t, d), like.dtype, self._perceptron)

    def _kept(self, name: str, source: Any, dtype: torch.dtype, put: Callable[..., Any]) -> Any:
        """put(source, dtype), unless it is the layer that went over last."""
        held, precision, there = self._held.get(name, (None, None, None))
        if held is not source or precision != dtype:
            there = put(source, dtype)
            self._held[name] = source, dtype, there
        return there

    def _beside(self, matrices: np.ndarray, dtype: torch.dtype) -> Any:
        """(H, d, p) -> (d, H p); None where there are none."""
        if not matrices.size:
            return None
        return self.put(matrices.swapaxes(0, 1).reshape(matrices.shape[1], -1), dtype)

    def _gate(self, gate: GateWeights, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return self._beside(gate.W, dtype), self.put(gate.b.ravel(), dtype)

    def _heads(self, layer: LayerWeights, dtype: torch.dtype) -> _Heads:
        if self.dynamics.gate.active:
            layer = layer.with_values
        return _Heads(
            n_heads=len(layer.query),
            query=self._beside(layer.query, dtype),
            query_bias=self.put(
                layer.query_bias.ravel() if layer.query_bias.any() else None, dtype
            ),
            key=self._beside(layer.key, dtype),
            value=self._beside(layer.value, dtype),
            output=self.put(layer.output.reshape(-1, layer.output.shape[2]), dtype),
            output_bias=self.put(layer.output_bias if layer.output_bias.any() else None, dtype),
            gate=None,
        )

    def _perceptron(self, weights: Sequence[np.ndarray], dtype: torch.dtype) -> tuple[Tensor, ...]:
        return tuple(self.put(array, dtype) for array in weights)

    # --- one layer ------------------------------------------------------------------------------

    def _layer(
        self,
        x: Tensor,
        heads: _Heads,
        perceptron: tuple[Tensor, ...] | None,
        t: int = 0,
        numbers: Sequence[int] = (),
    ) -> Tensor:
        """`AttentionDynamics.step` for samples x, (S, N, d), of these numbers."""
        dynamics, dropped = self.dynamics, _Dropped(self, t, numbers)

        def attend(z: Tensor) -> Tensor:
            return dropped(self._attend(z, heads, dropped, t), "projection")

        x = self._sublayer(x, attend, dynamics.norm.layer(t), t)
        if perceptron is None:
            return x
        W_1, b_1, W_2, b_2 = perceptron
        activation = ACTIVATIONS[dynamics.mlp.activation]

        def perceive(z: Tensor) -> Tensor:
            return dropped(activation(z @ W_1 + b_1) @ W_2 + b_2, "mlp")

        return self._sublayer(x, perceive, dynamics.mlp_norm.layer(t), t)

    def _sublayer(
        self, x: Tensor, function: Callable[[Tensor], Tensor], norm: Norm, t: int
    ) -> Tensor:
        """after(skip x + branch(function(before(x)))), both weighted as in layer t"""
        places, residual = self.dynamics.places(t), self.dynamics.residual.layer(t)
        branch = function(self._normalised(x, norm) if "before" in places else x)
        branch = self._normalised(branch, norm) if "branch" in places else branch
        if residual.branch_has_weight:
            branch = self._constant(residual.branch, x.dtype) * branch
        x = self._constant(residual.skip, x.dtype) * x + branch if residual.has_skip else branch
        return self._normalised(x, norm) if "after" in places else x

    def _normalised(self, x: Tensor, norm: Norm) -> Tensor:
        """`Norm.apply`: NaN for a token that cannot be scaled."""
        if isinstance(norm, ElementwiseNorm):
            gain, bias = (self._constant(number, x.dtype) for number in (norm.gain, norm.bias))
            return gain * FUNCTIONS[norm.function](norm.a * x + norm.s) + bias
        active, centre, scale, shift, gain, bias = norm.switches(x.shape[-1])
        if not active:
            return x
        if centre:
            x = x - x[..., :1]
            x = x - x.mean(dim=-1, keepdim=True)
        y = _scaled(x, scale, shift)  # not in place: it may be differentiated
        if np.ndim(gain) or gain != 1.0:
            y *= self._constant(gain, x.dtype)
        if np.ndim(bias) or bias != 0.0:
            y += self._constant(bias, x.dtype)
        return y

    def _constant(self, number: Any, dtype: torch.dtype) -> Any:
        """A number or an array, as a norm's gain, that torch may multiply with."""
        if np.ndim(number) == 0:
            return float(number)
        return self._kept(f"norm {id(number)}", number, dtype, self.put)

    def _attend(self, x: Tensor, heads: _Heads, dropped: _Dropped, t: int) -> Tensor:
        """sum_h A_h x W_V^h + bias for samples x, (S, N, d)."""
        query, key = self._query_and_key(x, heads, t)
        value = _by_head(x, heads.value, heads.n_heads)
        if self.dynamics.dropout.attention:
            factors = dropped.attention_factors(heads.n_heads, x.dtype)
            mixed = self._mixed(query, key, value, factors)
        else:
            mixed = self._softmax_mixed(query, key, value)  # (S H, N, q)
        mixed = mixed.unflatten(0, (len(x), heads.n_heads)).transpose(1, 2)  # (S, N, H, q)
        if heads.gate is not None:
            mixed = mixed * _projected(x, *heads.gate).sigmoid().unflatten(2, (heads.n_heads, -1))
        return _projected(mixed.flatten(2), heads.output, heads.output_bias)

    def _entropy(self, x: Tensor, heads: _Heads, t: int = 0) -> Tensor:
        """Mean entropy of the rows of A in layer t for samples x, (S, N, d)."""
        places, norm = self.dynamics.places(t), self.dynamics.norm.layer(t)
        x = self._normalised(x, norm) if "before" in places else x
        query, key = self._query_and_key(x, heads, t)

        def row_entropies(q: Tensor, k: Tensor, _: Tensor, piece: Piece) -> Tensor:
            p = self._probabilities(q @ k.mT, piece)
            return -torch.xlogy(p, p).sum(dim=-1, keepdim=True)

        rows = self._over(query, key, key[..., :1], row_entropies)  # (S H, N, 1)
        return rows.unflatten(0, (len(x), heads.n_heads)).mean(dim=(1, 2, 3))

    def _query_and_key(self, x: Tensor, heads: _Heads, t: int) -> tuple[Tensor, Tensor]:
        query = _by_head(x, heads.query, heads.n_heads, heads.query_bias)
        key = _by_head(x, heads.key, heads.n_heads)
        norms = self._qk_norms(t, query.shape[2])
        query, key = (
            self._normalised(z, norm) for z, norm in zip((query, key), norms, strict=True)
        )
        return self._turned(query), self._turned(key)

    def _qk_norms(self, t: int, width: int) -> tuple[Norm, Norm]:
        """What queries and keys are normalised by, the same objects in every call."""
        qk_norm = self.dynamics.qk_norm
        key = f"qk norms {0 if qk_norm.is_constant else t} {width}"
        if key not in self._held:
            self._held[key] = qk_norm.layer(t).norms(width)
        return self._held[key]

    def _turned(self, x: Tensor) -> Tensor:
        """`Position.turned` for queries or keys (B, N, p)."""
        position = self.dynamics.position
        if not isinstance(position, RoPE):
            return x
        n, width = x.shape[1:]
        angles = self._once(f"angles of {width}", lambda: position.angles(n, width))
        a, b = x.split(width // 2, dim=2)
        cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=2)

    def _once(self, name: str, made: Callable[[], np.ndarray]) -> Tensor:
        """An array that stays the same, made once, in float64 where there is one."""
        if name not in self._held:
            array = made()
            self._held[name] = self.put(
                array.astype(np.float32) if self._device.type == "mps" else array
            )
        return self._held[name]

    # --- attention ------------------------------------------------------------------------------

    def _softmax_mixed(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """A V for every sample and head, (B, N, q), without dropout."""
        if self._plain and self._edges is not None:
            return self._edges.mixed(query, key, value)
        if not (self._plain and self._device.type == "cpu" and is_tame(query, key)):
            return self._mixed(query, key, value)
        if self.dynamics.layout.kind == "causal":
            q, k, v = (z[:, None] for z in (query, key, value))
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
            return mixed[:, 0]
        return self._over(query, key, value, fused, squares=0)

    def _mixed(
        self, query: Tensor, key: Tensor, value: Tensor, factors: Tensor | None = None
    ) -> Tensor:
        """A V, the entries of A times these factors, (B, edges)."""

        def mix(q: Tensor, k: Tensor, v: Tensor, piece: Piece) -> Tensor:
            weights = self._probabilities(q @ k.mT, piece)
            if factors is not None:
                weights = weights * factors[piece.heads][:, piece.edges]
            return weights @ v

        return self._over(query, key, value, mix, squares=3 if factors is None else 4)

    def _probabilities(self, scores: Tensor, piece: Piece) -> Tensor:
        """What scores (b, t, c, W) become; they may be overwritten."""
        if self._plain:
            return softmax(scores, piece.allowed)
        dynamics, n_heads = self.dynamics, self.dynamics.weights.n_heads
        which = torch.arange(piece.heads.start, piece.heads.stop, device=self._device) % n_heads
        biases = dynamics.position.biases(dynamics.n_tokens, n_heads)
        if biases is not None:
            table = self._once("biases", lambda: biases)
            offsets = dynamics.n_tokens - 1 + piece.keys[:, None, :] - piece.rows[:, :, None]
            scores = scores + table[which].to(scores.dtype)[:, offsets]
        return KINDS[type(dynamics.kind)](dynamics.kind, scores, piece.allowed, which)

    def _over(
        self, query: Tensor, key: Tensor, value: Tensor, tile: Callable, squares: int = 3
    ) -> Tensor:
        """`Tiled.over`, within the budget."""
        squares += 0 if self._plain else 3
        entries = self.budget // query.element_size()
        return self._tiled.over(query, key, value, tile, entries, squares)

    def _samples_at_once(self, x: Tensor, t: int) -> int:
        """Samples whose queries, keys, values, hidden units and measures fit in the budget."""
        _, n, d = x.shape
        heads, perceptron = self._weights(t, x)
        hidden = 0 if perceptron is None else perceptron[0].shape[1]
        per_token = 3 * heads.query.shape[1] + 4 * heads.output.shape[0] + 2 * hidden + 8 * d
        return max(1, self.budget // (n * per_token * x.element_size()))


class _Dropped:
    """What is dropped of some samples in layer t: drawn by numpy, as for all engines."""

    def __init__(self, engine: TorchEngine, t: int, samples: Sequence[int]):
        self._engine, self._t, self._samples = engine, t, samples
        self._dropout = engine.dynamics.dropout

    def __call__(self, x: Tensor, place: str) -> Tensor:
        """x, (S, N, d), after dropout at this place; x itself without."""
        if not self._dropout.probability(place):
            return x
        return x * self._factors(place, x[0].numel(), x.dtype).reshape(x.shape)

    def attention_factors(self, n_heads: int, dtype: torch.dtype) -> Tensor:
        """Factors of the entries of A, (S H, edges)."""
        size = n_heads * self._engine.dynamics.layout.n_edges
        return self._factors("attention", size, dtype).unflatten(1, (n_heads, -1)).flatten(0, 1)

    def _factors(self, place: str, size: int, dtype: torch.dtype) -> Tensor:
        drawn = [self._dropout.kept(place, self._t, s, size) for s in self._samples]
        kept = self._engine.put(np.stack(drawn))
        return kept.to(dtype) * (1.0 / (1.0 - self._dropout.probability(place)))


def _budget(device: torch.device) -> int:
    """Bytes that temporaries may take; on a GPU an eighth of what is free, as a power of two.

    A power of two, so that a little more or less free memory changes no bits.
    """
    if device.type != "cuda":
        return _CPU_BUDGET
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return 2 ** (max(free, 2**26).bit_length() - 4)


@contextmanager
def _whole_products() -> Iterator[None]:
    """Float32 products in float32 (no TF32, no bfloat16), whatever the process allows elsewhere."""
    settings: Any = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = [setting.fp32_precision for setting in settings]
    for setting in settings:
        setting.fp32_precision = "ieee"
    try:
        yield
    finally:
        for setting, precision in zip(settings, before, strict=True):
            setting.fp32_precision = precision


def _projected(x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    return x @ matrix if bias is None else x @ matrix + bias


def _by_head(x: Tensor, matrix: Tensor | None, n_heads: int, bias: Tensor | None = None) -> Tensor:
    """x matrix + bias, samples and heads as one axis: (S, N, d) -> (S H, N, p)."""
    if matrix is None:
        return x[:, None].expand(-1, n_heads, -1, -1).flatten(0, 1)
    return _projected(x, matrix, bias).unflatten(2, (n_heads, -1)).transpose(1, 2).flatten(0, 1)


def _is_ordinary(size: Tensor) -> Tensor:
    """Where squares, and squares of parts of rounding's size, neither vanish nor overflow."""
    limits = torch.finfo(size.dtype)
    return (size > limits.tiny**0.25) & (size < limits.max**0.25)


def _all_on_cpu(condition: Tensor) -> bool:
    """True where all holds; False on a GPU, which would have to wait for the answer."""
    return condition.device.type == "cpu" and bool(condition.all())


def _scaled(x: Tensor, scale: float, shift: float) -> Tensor:
    """scale x / sqrt(||x||^2 + shift) for each token; NaN for one that cannot be scaled."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    ordinary = _is_ordinary(size)
    direct = x * (scale / (torch.sqrt(size.square() + shift) if shift else size))
    if _all_on_cpu(ordinary):
        return direct
    unit = torch.linalg.vector_norm(x, torch.inf, dim=-1, keepdim=True)
    safe = torch.where(unit > 0, unit, 1.0)
    y = x / safe
    size = torch.linalg.vector_norm(y, dim=-1, keepdim=True)
    if shift:
        size = torch.sqrt(size.square() + shift / safe / safe)
    else:
        size = torch.where(unit > 0, size, torch.nan)
    return torch.where(ordinary, direct, y * (scale / size))


def _observe(x: Tensor) -> Tensor:
    """`dynsim.measures.observe` on the device, (len(CHEAP), S); in float64 where there is one."""
    z = x if x.device.type == "mps" else x.double()
    sizes = torch.linalg.vector_norm(z, dim=2)  # (S, N)
    ordinary = _is_ordinary(sizes.amax(dim=1))
    unit = safe = torch.ones_like(sizes[:, 0])
    if not _all_on_cpu(ordinary):
        largest = torch.linalg.vector_norm(z, torch.inf, dim=(1, 2))
        unit = torch.where(ordinary, 1.0, largest)
        safe = torch.where(unit > 0, unit, 1.0)
        z = z / safe[:, None, None]
        sizes = torch.linalg.vector_norm(z, dim=2)
    deviations = z - z[:, :1]
    deviations -= deviations.mean(dim=1, keepdim=True)
    n, tokens = z.shape[1], (sizes > 0).sum(dim=1)  # those that have a direction
    directions = torch.where(sizes > 0, 1.0 / sizes, 0.0)[:, None] @ z  # their sum, (S, 1, d)
    pairs = directions.square().sum(dim=(1, 2)) - tokens
    found = {
        "mu": safe * torch.linalg.vector_norm(deviations, dim=(1, 2)),
        "mean_cosine": pairs / (n * (n - 1)) if n > 1 else torch.ones_like(unit),
        "norm_min": safe * sizes.amin(dim=1),
        "norm_max": safe * sizes.amax(dim=1),
        "frobenius_norm": safe * torch.linalg.vector_norm(sizes, dim=1),
    }
    observed = torch.stack([found[name] for name in CHEAP])
    return torch.where(unit.isfinite(), observed, torch.nan)
