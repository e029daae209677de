"""``dynsim presets``: the options that stand for the layers of known models.

A preset is data, options of ``dynsim run`` by name. It says how layers are built, not how large
they are (heads, dimension, depth), nor what was trained: weights stay those of --value and
--scores. Options that are given win over those of the preset.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass

from dynsim._values import check_name
from dynsim.cli.command import Command, Outcome
from dynsim.cli.completion import completes

__all__ = ["COMMAND", "PRESETS", "Preset", "apply_preset", "describe_preset", "main"]


@dataclass(frozen=True)
class Preset:
    """options : by the names of the command line, without dashes
    source : of what the model is
    lacks : what of its layers is not here
    """

    options: dict[str, str | float]
    source: str
    lacks: str = ""


#: Every preset by name.
PRESETS = {
    "bert": Preset(
        {"mask": "complete", "norm": "layernorm:eps=1e-12", "placement": "post", "skip": "1",
         "mlp": "gaussian:gelu"},
        "BERT, arXiv 1810.04805",
        "positions are in its embeddings",
    ),
    "gpt2": Preset(
        {"mask": "causal", "norm": "layernorm:eps=1e-5", "placement": "pre", "skip": "1",
         "mlp": "gaussian:gelu_tanh"},
        "GPT-2 (Radford and others, 2019)",
        "positions are in its embeddings",
    ),
    "llama": Preset(
        {"mask": "causal", "norm": "rms:eps=1e-5", "placement": "pre", "skip": "1",
         "position": "rope:500000", "mlp": "gaussian:swiglu"},
        "Llama 3, arXiv 2407.21783",
    ),
    "gemma3": Preset(
        {"mask": "causal", "norm": "rms:eps=1e-6", "placement": "peri", "skip": "1",
         "position": "rope:1000000", "qk-norm": "rms", "mlp": "gaussian:gelu_tanh"},
        "Gemma 3, arXiv 2503.19786",
        "five of six layers see a window of 1024 tokens; its MLP is gated (GeGLU), here it is not",
    ),
    "qwen3": Preset(
        {"mask": "causal", "norm": "rms:eps=1e-6", "placement": "pre", "skip": "1",
         "position": "rope:1000000", "qk-norm": "rms", "mlp": "gaussian:swiglu"},
        "Qwen3, arXiv 2505.09388",
    ),
    "gpt-oss": Preset(
        {"mask": "causal", "norm": "rms:eps=1e-5", "placement": "pre", "skip": "1",
         "position": "rope:150000", "sink": 0.0, "mlp": "gaussian:swiglu"},
        "gpt-oss, arXiv 2508.10925",
        "every other layer sees a window of 128 tokens; sinks are learned, here all are 0; experts "
        "share the MLP",
    ),
    "ngpt": Preset(
        {"mask": "causal", "norm": "unit", "placement": "ngpt", "skip": "lerp:0.05",
         "position": "rope:10000", "qk-norm": "rms", "mlp": "gaussian:swiglu"},
        "nGPT, arXiv 2410.01131",
        "its matrices have rows or columns of length 1, here they are drawn; 0.05 is where its "
        "step, learned by dimension, begins",
    ),
}  # fmt: skip


def apply_preset(options: argparse.Namespace) -> None:
    """Set the options of --preset that are not given, in place.

    Raises ValueError for an unknown preset, and for one beside layers that are given whole.
    """
    if getattr(options, "preset", None) is None:
        return
    check_name("preset", options.preset, PRESETS)
    if (options.weights or "").startswith("minilm:all"):
        raise ValueError(f"--weights {options.weights} brings whole layers; leave --preset out")
    for name, value in PRESETS[options.preset].options.items():
        field = name.replace("-", "_")
        is_free = getattr(options, field) is None and _rival(options, name) is None
        if is_free:
            setattr(options, field, value)


def _rival(options: argparse.Namespace, name: str) -> str | None:
    """The other option for the same thing, if that is given."""
    rival = {"norm": "ln", "mask": "graph"}.get(name)
    return None if rival is None or getattr(options, rival) is None else rival


def describe_preset(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Lines for people: each option of the preset with the value that it has now."""
    if options.preset is None:
        return []
    preset = PRESETS[options.preset]
    lines = [("preset", f"{options.preset}: {preset.source}")]
    for name, value in preset.options.items():
        now, rival = getattr(options, name.replace("-", "_")), _rival(options, name)
        words = f"{name} = {now}" + ", as given" * (now != value)
        lines.append(("", words if rival is None else f"{name}: as --{rival} says"))
    return [*lines, *([("", f"({preset.lacks})")] if preset.lacks else [])]


def add_options(parser: argparse.ArgumentParser) -> None:
    names = parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(PRESETS)} (default: all)"
    )
    completes(names, PRESETS)


def prepare(options: argparse.Namespace, words: list[str]) -> dict[str, Preset]:
    for name in options.names:
        check_name("preset", name, PRESETS)
    return {name: PRESETS[name] for name in options.names or PRESETS}


def compute(
    chosen: dict[str, Preset], options: argparse.Namespace, progress: Callable[[float], None]
) -> Outcome:
    lines = []
    for name, preset in chosen.items():
        lines.append(f"{name:<10}{preset.source}")
        lines += [f"{'':<10}{option} = {value}" for option, value in preset.options.items()]
        lines += [f"{'':<10}({preset.lacks})"] * bool(preset.lacks)
    data = {"presets": {name: asdict(preset) for name, preset in chosen.items()}}
    return Outcome(data, "--preset NAME takes these options", "\n".join(lines))


COMMAND = Command(
    name="presets",
    description="What --preset NAME sets, model by model; options that are given win over it.",
    add_options=add_options,
    prepare=prepare,
    compute=compute,
    examples="""\
  python -m dynsim presets
      the options of every preset
  python -m dynsim presets gpt2 qwen3
      of these two
  python -m dynsim.run --preset gpt2 --placement post
      GPT-2's layers, but for the placement of its norms
""",
    label="listing",
    writes=False,
)
main = COMMAND.main
