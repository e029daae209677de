"""Is a model collapsing, layer by layer? `probe` runs and measures it; `measure` takes arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from dynsim._files import read_named_arrays
from dynsim._values import shown, whole
from dynsim.models.architecture import without_fast_path
from dynsim.models.profile import Profile, Rows, joined
from dynsim.models.states import measure_state
from dynsim.models.tracing import DEFAULT_MEASURED, DEFAULT_POINTS, check_model, trace

if TYPE_CHECKING:
    from pathlib import Path

    from dynsim.models.change import Change

__all__ = ["first_text", "in_mode", "measure", "on_device", "probe", "without_head"]

#: Tokens of the first sample on which a probed model is compared with itself.
_COMPARED = 16


def probe(
    model: nn.Module,
    *,
    points: Sequence[str] = DEFAULT_POINTS,
    measured: Sequence[str] = DEFAULT_MEASURED,
    change: Change | None = None,
    train_mode: bool = False,
    batch_size: int | None = None,
    blocks: str | None = None,
    threshold: float = 0.1,
    progress: Callable[[float], None] | None = None,
    **inputs: Any,
) -> Profile:
    """Run a model and measure its hidden states and attention, layer by layer.

    The model runs in eval mode, without gradients and without a cache; of a language model the head
    on the vocabulary is left out. No activations are kept: besides the forward pass itself, memory
    holds the attention of some heads of one sample (64 MB at most, or one head) and its hidden
    states in float64. Before anything is measured, the model is run on the first tokens of the
    first sample with hooks and without, and the outputs must agree bit for bit.

    Parameters
    ----------
    model : torch.nn.Module
        A model of transformers (encoder, decoder, both, vision), or any module with blocks.
    points, measured, blocks, threshold
        What is measured where: see `dynsim.trace`.
    change : dynsim.models.Change, optional
        What if: another mask or temperature, norms, skips or MLPs switched off.
    train_mode : bool
        Measure with dropout on, as in training.
    batch_size : int, optional
        Samples that are run at once; all of them unless given.
    progress : callable, optional
        Called with the share of samples that is done.
    **inputs
        What the model's forward takes: input_ids, attention_mask, pixel_values, ... Padded tokens,
        by attention_mask, are not measured.

    Raises
    ------
    ValueError
        For a model or input that cannot be measured: no blocks, compiled, on the meta device, texts
        of one token or longer than its positions, outputs that are not those of the unprobed model.
    FloatingPointError
        For hidden states that are not finite.

    Examples
    --------
    >>> inputs = tokenizer(texts, return_tensors="pt", padding=True)  # doctest: +SKIP
    >>> profile = dynsim.probe(model, **inputs)  # doctest: +SKIP
    >>> print(profile.diagnosis.sentence)  # doctest: +SKIP
    """
    check_model(model, points, measured, blocks)
    _check_parameters(model)
    body = without_head(model, inputs)
    tensors = on_device(body, inputs)
    samples = _check_samples(model, tensors)
    size = samples if batch_size is None else whole("batch size", batch_size, least=1)
    options: dict[str, Any] = {
        "points": points, "measured": measured, "blocks": _within(model, body, blocks),
        "threshold": threshold,
    }  # fmt: skip
    profiles = []
    with in_mode(body, train_mode), torch.no_grad():
        _check_unchanged(body, first_text(tensors, samples, _COMPARED), options)
        for first in range(0, samples, size):
            changed = nullcontext() if change is None else change.applied(body)
            with trace(body, **options) as traced, changed:
                body(**_samples(tensors, samples, slice(first, first + size)))
            profiles.append(traced.profile)
            if progress is not None:
                progress(min(1.0, (first + size) / samples))
    whole_profile = joined(profiles)
    facts = {**whole_profile.facts, "model": type(model).__name__}
    facts["change"] = "" if change is None else str(change)
    return Profile(whole_profile.states, whole_profile.heads, whole_profile.norms, facts)


# --- what is refused before any work ------------------------------------------------------------


def _check_parameters(model: nn.Module) -> None:
    offloaded = any(hasattr(module, "_hf_hook") for module in model.modules())
    for name, parameter in model.named_parameters():
        if parameter.is_meta and not offloaded:
            raise ValueError(
                f"{name} is on the meta device and has no values; load the weights "
                f"(from_pretrained) or initialise them (to_empty and init)"
            )


def _check_samples(model: nn.Module, tensors: Mapping[str, Any]) -> int:
    """How many samples there are. Raises ValueError for texts that are too short or too long."""
    sizes = [len(x) for x in tensors.values() if isinstance(x, torch.Tensor) and x.ndim]
    if not sizes or not max(sizes):
        raise ValueError(
            "there is no input; give what the model's forward takes, such as input_ids=..."
        )
    ids = tensors.get("input_ids")
    if isinstance(ids, torch.Tensor) and ids.ndim == 2:
        _check_length(getattr(model, "config", None), ids.shape[1])
        _check_vocabulary(model, ids)
    mask = tensors.get("attention_mask")
    if isinstance(mask, torch.Tensor) and mask.ndim == 2:
        for sample in torch.nonzero(mask.bool().sum(dim=1) < 2).flatten().tolist():
            raise ValueError(
                f"text {sample} has {int(mask[sample].bool().sum())} token and nothing to "
                f"collapse; give texts of at least 2 tokens"
            )
    return sizes[0]


def _check_length(config: Any, tokens: int) -> None:
    if tokens < 2:
        raise ValueError(
            "a text of one token has nothing to collapse; give texts of at least 2 tokens"
        )
    names = ("max_position_embeddings", "n_positions")
    limits = [getattr(config, name, None) for name in names]
    limit = next((limit for limit in limits if isinstance(limit, int)), None)
    if limit is not None and tokens > limit:
        raise ValueError(
            f"a text of {tokens} tokens is longer than the model's {limit} positions; cut it "
            f"(truncation=True, max_length={limit})"
        )


def _check_vocabulary(model: nn.Module, ids: torch.Tensor) -> None:
    embedded = getattr(model, "get_input_embeddings", lambda: None)()
    size = getattr(embedded, "num_embeddings", None)
    if size is not None and not (int(ids.min()) >= 0 and int(ids.max()) < size):
        raise ValueError(
            f"input_ids lie in the vocabulary, 0 to {size - 1}; got {int(ids.min())} to "
            f"{int(ids.max())}; use the model's own tokenizer"
        )


def _check_unchanged(body: nn.Module, inputs: Mapping[str, Any], options: Mapping) -> None:
    """Raise ValueError unless hooks leave the model's output as it is, bit for bit, and there is
    something to measure."""
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices):
        state = torch.random.get_rng_state()
        try:
            with without_fast_path():
                plain = list(_numbers(body(**inputs)))
        except ValueError as error:
            _require_decoder_input(body, inputs, error)
            raise
        torch.random.set_rng_state(state)
        with trace(body, **options) as traced:
            probed = list(_numbers(body(**inputs)))
        _ = traced.profile  # raises ValueError where there is no hidden state to measure
    same = len(plain) == len(probed) and all(map(_same, plain, probed))
    if not same:
        raise ValueError(
            "the model's output with hooks is not that without, so nothing measured would be the "
            "model's; use a model whose output depends on its inputs and seed alone"
        )


def _require_decoder_input(body: nn.Module, inputs: Mapping[str, Any], error: ValueError) -> None:
    """Some encoder-decoders (BART) make the decoder's input from the encoder's; others refuse."""
    two = getattr(getattr(body, "config", None), "is_encoder_decoder", False)
    if two and not {"decoder_input_ids", "decoder_inputs_embeds"} & set(inputs):
        raise ValueError(
            f"{type(body).__name__} has a decoder, which takes an input of its own; give "
            f"decoder_input_ids=... too, or probe model.encoder alone"
        ) from error


# --- inputs -------------------------------------------------------------------------------------


def without_head(model: nn.Module, inputs: Mapping[str, Any]) -> nn.Module:
    """The model's body, which takes the same inputs: logits over a vocabulary are left out."""
    body = getattr(model, "base_model", model)
    if not isinstance(body, nn.Module):
        return model
    accepted = signature(body.forward).parameters
    return body if set(inputs) <= set(accepted) else model


def _within(model: nn.Module, body: nn.Module, blocks: str | None) -> str | None:
    """The name, within the body, of the blocks that are named within the model."""
    if blocks is None or body is model:
        return blocks
    names = {id(module): name for name, module in body.named_modules()}
    return names.get(id(dict(model.named_modules())[blocks]), blocks)


def on_device(body: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as tensors beside the model's parameters, without a cache."""
    device = next((p.device for p in body.parameters() if not p.is_meta), torch.device("cpu"))
    tensors = {
        name: torch.as_tensor(value).to(device)
        if isinstance(value, (torch.Tensor, np.ndarray, list))
        else value
        for name, value in inputs.items()
    }
    if "use_cache" in signature(body.forward).parameters and "use_cache" not in inputs:
        tensors["use_cache"] = False
    return tensors


def _samples(tensors: Mapping[str, Any], samples: int, part: slice) -> dict[str, Any]:
    """Those of some samples."""
    return {
        name: x[part] if isinstance(x, torch.Tensor) and x.ndim and len(x) == samples else x
        for name, x in tensors.items()
    }


def first_text(tensors: Mapping[str, Any], samples: int, most: int) -> dict[str, Any]:
    """The first sample, of texts its first tokens that are no padding, at most so many."""
    first = _samples(tensors, samples, slice(1))
    ids, mask = first.get("input_ids"), first.get("attention_mask")
    if not isinstance(ids, torch.Tensor) or ids.ndim != 2:
        return first
    there = torch.arange(ids.shape[1], device=ids.device)
    if isinstance(mask, torch.Tensor) and mask.ndim == 2:
        there = there[mask[0].bool()]
    return {
        name: x[:, there[:most]] if isinstance(x, torch.Tensor) and x.shape == ids.shape else x
        for name, x in first.items()
    }


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Every module in this mode, and back in its own afterwards."""
    before = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def _numbers(out: Any) -> Iterator[torch.Tensor]:
    """All tensors of a model's output."""
    if isinstance(out, torch.Tensor):
        yield out
    elif isinstance(out, Mapping):
        for part in out.values():
            yield from _numbers(part)
    elif isinstance(out, (tuple, list)):
        for part in out:
            yield from _numbers(part)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


# --- arrays -------------------------------------------------------------------------------------


def measure(hidden_states: Any, *, name: str = "hidden states") -> Profile:
    """Measure hidden states that are at hand: arrays, torch tensors, or a file of them.

    Parameters
    ----------
    hidden_states : sequence of layers, each (N, d) or (samples, N, d); or a path
        Arrays or tensors, of any floating-point type, with gradients or not: what
        `output_hidden_states=True` gives, or one array (layers, samples, N, d). Of a file
        (.npz, .safetensors, .npy) the arrays are layers in the order of its names.
    name : str
        What they are called in the table.

    Raises
    ------
    ValueError
        For other shapes or kinds, texts of one token, files that cannot be read.
    FloatingPointError
        For numbers that are not finite.

    Examples
    --------
    >>> x = np.random.default_rng(1).normal(size=(2, 8, 4))
    >>> profile = measure([x, 0.1 * x + x.mean(axis=1, keepdims=True)])
    >>> profile.dataset["relative_mu"].sel(point="layers_output").shape
    (2, 2)
    >>> profile.diagnosis.kind
    'collapsing'
    """
    rows, eps = Rows(), 0.0
    layers = _layers(hidden_states)
    if not len(layers):
        raise ValueError("there are no hidden states; give at least one layer")
    for layer, x in enumerate(layers):
        states, own_eps = _as_states(x)
        eps = max(eps, own_eps)
        for sample, tokens in enumerate(states):
            if len(tokens) < 2:
                raise ValueError("a text of one token has nothing to collapse; give at least 2")
            try:
                row = measure_state(tokens, own_eps)
            except FloatingPointError as error:
                raise FloatingPointError(f"layer {layer}, sample {sample}: {error}") from None
            rows.states["", "layers_output", layer, sample] = row
    return Profile.of_rows(rows, {"model": name, "sources": {}})


def _layers(hidden_states: Any) -> Sequence[Any]:
    if isinstance(hidden_states, (str, bytes)) or hasattr(hidden_states, "__fspath__"):
        return _of_file(hidden_states)
    if isinstance(hidden_states, Mapping):
        return list(hidden_states.values())
    if isinstance(hidden_states, (tuple, list)):
        return hidden_states
    if getattr(hidden_states, "ndim", 0) in (2, 3):
        return [hidden_states]
    if getattr(hidden_states, "ndim", 0) == 4:
        return hidden_states
    raise ValueError(
        f"hidden states are layers, each (N, d) or (samples, N, d); got {shown(hidden_states)}"
    )


def _of_file(path: str | Path) -> list[np.ndarray]:
    arrays = read_named_arrays(path)
    stacked = list(arrays.values())
    return list(stacked[0]) if len(stacked) == 1 and stacked[0].ndim == 4 else stacked


def _as_states(x: Any) -> tuple[np.ndarray, float]:
    """(samples, N, d) in float64, and the machine epsilon of the type that it came in."""
    if isinstance(x, torch.Tensor):
        if not x.is_floating_point():
            raise ValueError(f"hidden states are floating-point numbers; got {x.dtype}")
        eps = float(torch.finfo(x.dtype).eps)
        x = x.detach().double().cpu().numpy()
    else:
        x = np.asarray(x)
        if x.dtype.kind != "f":
            raise ValueError(f"hidden states are floating-point numbers; got {x.dtype}")
        eps = float(np.finfo(x.dtype).eps)
    if x.ndim not in (2, 3) or 0 in x.shape:
        raise ValueError(f"a layer is (N, d) or (samples, N, d), none of them 0; got {x.shape}")
    return (x if x.ndim == 3 else x[None]).astype(np.float64), eps
