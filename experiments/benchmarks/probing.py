"""What measuring a model costs, in time beside its forward pass and in memory.

    python -m experiments.benchmarks.probing [--rounds R] [--models A,B] [--memory]

Times are medians of rounds in which the ways take turns, in one process; peaks of memory are those
of a fresh process each.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers

import dynsim
from dynsim.models import excerpts, load_model

TEXT = Path(__file__).parents[2] / "README.md"
TOKENS, SAMPLES = 128, 4
#: Texts and tokens whose memory is measured.
LARGE = (64, 512)
#: A model of 30 layers with random weights, of the sizes of SmolLM2's tokens.
DEEP = {
    "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3,
    "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 1000, "pad_token_id": 0,
}  # fmt: skip


def deep(samples: int, n: int):
    """The random model of 30 layers, and inputs."""
    torch.manual_seed(0)
    model = transformers.LlamaModel(transformers.LlamaConfig(**DEEP)).eval()
    return model, {"input_ids": torch.randint(1, 1000, (samples, n))}


def real(name: str, samples: int, n: int):
    source = load_model(name)
    return source.model, excerpts(source, TEXT.read_text(encoding="utf-8"), n, samples)


MODELS = {"minilm": partial(real, "minilm"), "smollm2": partial(real, "smollm2"), "deep": deep}


def forward(model, inputs) -> None:
    with torch.no_grad():
        model(**inputs, use_cache=False)


def traced(model, inputs, **options) -> None:
    with dynsim.trace(model, **options):
        forward(model, inputs)


def by_hand(model, inputs) -> None:
    """All hidden states at once, and numpy: mu, and the ranks that singular values give."""
    with torch.no_grad():
        states = model(**inputs, use_cache=False, output_hidden_states=True).hidden_states
    for layer in states:
        for x in layer.double().numpy():
            sigma = np.linalg.svd(x, compute_uv=False)
            p = sigma / sigma.sum()
            np.linalg.norm(x - x.mean(axis=0))
            np.linalg.norm(x) ** 2 / sigma[0] ** 2, np.exp(-(p * np.log(p)).sum())


WAYS: dict[str, Callable] = {
    "forward": forward,
    "hooks, embeddings alone": partial(traced, points=("embeddings",), measured=()),
    "norms": partial(traced, points=("embeddings",), measured=("norms",)),
    "heads": partial(traced, points=("embeddings",), measured=("heads",)),
    "states": partial(traced, measured=()),
    "trace, default": traced,
    "probe, default": lambda model, inputs: dynsim.probe(model, **inputs),
    "output_hidden_states and numpy": by_hand,
}


def times(name: str, rounds: int) -> dict[str, float]:
    """Seconds of each way, the median over rounds."""
    model, inputs = MODELS[name](SAMPLES, TOKENS)
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(rounds + 1):  # the first warms up
        for way, work in WAYS.items():
            begun = time.perf_counter()
            work(model, inputs)
            if turn:
                taken[way].append(time.perf_counter() - begun)
    return {way: float(np.median(seconds)) for way, seconds in taken.items()}


def peak(way: str) -> float:
    """MB that a fresh process takes for a way on many texts, above what it had with the model."""
    command = [sys.executable, "-m", "experiments.benchmarks.probing", "--peak-of", way]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _peak_here(way: str) -> float:
    model, inputs = deep(*LARGE)
    forward(model, {"input_ids": inputs["input_ids"][:1, :8]})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if way == "probe, 8 at once":
        dynsim.probe(model, batch_size=8, **inputs)
    elif way == "forward, 8 at once":
        for ids in inputs["input_ids"].split(8):
            forward(model, {"input_ids": ids})
    else:
        WAYS[way](model, inputs)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--memory", action="store_true", help="peaks, minutes each")
    parser.add_argument("--peak-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak_of:
        print(_peak_here(options.peak_of))
        return
    for name in filter(None, options.models.split(",")):
        found = times(name, options.rounds)
        print(f"{name}, {SAMPLES} texts of {TOKENS} tokens")
        for way, seconds in found.items():
            share = seconds / found["forward"]
            print(f"  {way:<32}{1e3 * seconds:9.1f} ms {share:7.2f} of the forward pass")
    if options.memory:
        print(f"peak memory, 30 layers, {LARGE[0]} texts of {LARGE[1]} tokens")
        for way in ("forward", "trace, default", "forward, 8 at once", "probe, 8 at once",
                    "output_hidden_states and numpy"):  # fmt: skip
            print(f"  {way:<32}{peak(way):9.0f} MB above the model", flush=True)


if __name__ == "__main__":
    main()
