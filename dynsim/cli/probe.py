"""``dynsim probe``: measure a real model layer by layer, and ask what a change would do to it."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dynsim._files import read_text
from dynsim.cli import options as shared
from dynsim.cli import output
from dynsim.cli.command import Command, Outcome
from dynsim.cli.completion import completes
from dynsim.masks import MASKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from dynsim.models.change import Change
    from dynsim.models.profile import Profile
    from dynsim.models.sources import Source
    from dynsim.reports.page import Page

__all__ = ["COMMAND", "main"]

EXAMPLES = """\
  python -m dynsim probe --model minilm --text README.md
      does it collapse, layer by layer? table, verdict and figure
  python -m dynsim probe --model smollm2 --text README.md --untrained
      beside the same architecture freshly initialised
  python -m dynsim probe --model path/to/folder --text README.md --mask local --window 4 --ln off
      what if: another mask and no LayerNorm, on the model's own weights
"""
#: Torch last, so that without any of them the extra that brings all is named.
PACKAGES = ("transformers", "tokenizers", "safetensors", "torch")


@dataclass(frozen=True)
class Plan:
    """A model, its inputs, whole and by the samples that are run at once, and what is measured."""

    source: Source
    texts: dict[str, Any]
    batches: list[dict[str, Any]]
    change: Change | None
    measuring: dict[str, Any]
    resumed: Profile | None


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model and text")
    model = group.add_argument(
        "--model", required=True, metavar="NAME|PATH",
        help="minilm, smollm2, a folder that save_pretrained wrote, a .gguf file, or a name in the "
        "Hugging Face cache",
    )  # fmt: skip
    completes(model, ["minilm", "smollm2"])
    group.add_argument("--text", required=True, metavar="FILE", help="text, cut into excerpts")
    group.add_argument("--lines", action="store_true", help="a text is a line of the file instead")
    group.add_argument("--tokens", type=int, default=128, metavar="N", help="tokens of an excerpt")
    group.add_argument("--samples", type=int, default=8, metavar="S", help="texts at most")
    group.add_argument("--batch", type=int, default=8, metavar="B", help="texts run at once")
    group.add_argument("--download", action="store_true", help="fetch a model from the Hub")
    group.add_argument(
        "--untrained",
        action="store_true",
        help="measure the same architecture, untrained, beside it",
    )
    group.add_argument("--train-mode", action="store_true", help="measure with dropout on")
    group.add_argument(
        "--seed", type=int, default=0, metavar="K", help="seed of --untrained and of dropout"
    )
    group.add_argument(
        "--resume", metavar="FILE", help="go on from a profile of the same command (default: begin)"
    )
    measured = parser.add_argument_group("what is measured")
    measured.add_argument(
        "--points", default="embeddings,layers_output,final_norm", metavar="A,B,...",
        help="where to measure; also attentions_input, attentions_output, mlps_output, or patterns "
        "of module names",
    )  # fmt: skip
    measured.add_argument(
        "--measured", default="norms,heads", metavar="A,B,...",
        help="what to measure; also graph (lambda_2 of each head) and keys (unselectable keys "
        "of each head)",
    )  # fmt: skip
    what_if = parser.add_argument_group("what if", "changes of the model; its weights stay")
    mask = what_if.add_argument(
        "--mask", metavar="NAME", help="in place of the model's own mask (default: that)"
    )
    completes(mask, MASKS)
    what_if.add_argument(
        "--window",
        type=int,
        metavar="K",
        help="reach of a mask with a window (default: the mask's)",
    )
    for name, what in (("ln", "norms in the blocks"), ("skip", "skips"), ("mlp", "MLPs")):
        what_if.add_argument(f"--{name}", choices=("on", "off"), default="on", help=what)
    what_if.add_argument("--beta", type=float, default=1.0, metavar="B", help="times the scores")


def prepare(options: argparse.Namespace, words: list[str]) -> Plan:
    from dynsim.models.profile import load_profile
    from dynsim.models.sources import open_source
    from dynsim.models.texts import excerpts, lines
    from dynsim.models.tracing import check_model

    shared.check_least(options, tokens=2, samples=1, batch=1)
    if options.untrained and options.resume:
        raise ValueError("--resume goes on with the model alone; leave --untrained out")
    text = read_text(options.text)
    resumed = load_profile(options.resume) if options.resume else None
    change = _change(options)
    source = open_source(options.model, options.download)
    if source.takes_images:
        raise ValueError(
            f"{options.model} takes images; in Python, dynsim.probe(model, pixel_values=...)"
        )
    inputs = (
        lines(source, text, options.samples)
        if options.lines
        else excerpts(source, text, options.tokens, options.samples)
    )
    measuring = {"points": options.points.split(","), "measured": options.measured.split(",")}
    check_model(source.model, **measuring, blocks=None)
    total = len(inputs["input_ids"])
    done = 0 if resumed is None else resumed.samples
    if resumed is not None and (done >= total or done % options.batch):
        raise ValueError(
            f"{options.resume} holds {done} texts of {total}, in batches of {options.batch}; go on "
            f"with the options of the interrupted command"
        )
    batches = [
        {name: tensor[k : k + options.batch] for name, tensor in inputs.items()}
        for k in range(done, total, options.batch)
    ]
    return Plan(source, inputs, batches, change, measuring, resumed)


def _change(options: argparse.Namespace) -> Change | None:
    from dynsim.models.change import Change

    if options.window is not None and options.mask is None:
        raise ValueError("--window is that of a mask; name one by --mask")
    switches = {"norm": options.ln, "skip": options.skip, "mlp": options.mlp}
    change = Change(
        mask=options.mask,
        mask_options={} if options.window is None else {"window": options.window},
        beta=options.beta,
        **{name: "off" for name, value in switches.items() if value == "off"},
    )
    return change if change.active else None


def compute(plan: Plan, options: argparse.Namespace, progress: Callable[[float], None]) -> Outcome:
    parts = 1 + options.untrained
    own = Path(options.model).name
    profile = _measured(plan, plan.source, options, lambda share: progress(share / parts), own)
    beside: dict[str, Profile] = {}
    if options.untrained:
        name = f"{own}, untrained"
        fresh = plan.source.untrained(options.seed)
        beside[name] = _measured(
            plan, fresh, options, lambda share: progress((1 + share) / parts), name
        )
    data = {
        **profile.to_dict(),
        "source": plan.source.provenance,
        "verdict": profile.diagnosis.to_dict(),
        "untrained": [other.to_dict() for other in beside.values()],
    }
    outcome = Outcome(
        data=data,
        verdict=profile.diagnosis.sentence,
        table="\n\n".join(_without_diagnosis(p) for p in (profile, *beside.values())),
        notes="\n".join(f"{name}: {p.diagnosis.sentence}" for name, p in beside.items()),
        subject=own,
        draw=lambda plots: profile.plot(beside),
        page=lambda: _page(plan, options, profile, beside),
    )
    path = output.stem("probe", outcome, options)
    outcome.files.append(profile.save(f"{path}.nc"))
    for other in beside.values():
        outcome.files.append(other.save(f"{path}_untrained.nc"))
    return outcome


def _page(
    plan: Plan, options: argparse.Namespace, profile: Profile, beside: dict[str, Profile]
) -> Page:
    """The page of --report, with the tokens of the first text."""
    from dynsim.models.recording import record
    from dynsim.reports import profiles
    from dynsim.reports.settings import rows

    first = plan.texts
    there = first["attention_mask"][0].bool()
    names = [plan.source.tokenizer.decode([k]) for k in first["input_ids"][0][there].tolist()]
    recording = record(
        plan.source.model, change=plan.change, train_mode=options.train_mode, names=names, **first
    )
    given = {name: value for name, value in vars(options).items() if name not in output.OPTIONS}
    settings = rows({**given, "source": plan.source.provenance, **profile.facts})
    return profiles.page(profile, beside, recording, settings=settings)


def _without_diagnosis(profile: Profile) -> str:
    return str(profile).split("\n\ndiagnosis")[0]


def _measured(
    plan: Plan,
    source: Source,
    options: argparse.Namespace,
    progress: Callable[[float], None],
    name: str,
) -> Profile:
    """The profile of one model; at Ctrl-C what is done of the trained one is kept in a file."""
    import torch

    from dynsim.models.probing import probe
    from dynsim.models.profile import joined

    profiles = [] if plan.resumed is None else [plan.resumed]
    try:
        for k, batch in enumerate(plan.batches):
            with torch.random.fork_rng(devices=[]):
                first = sum(profile.samples for profile in profiles)
                torch.manual_seed(options.seed + first)  # dropout does not depend on interruptions
                profiles.append(probe(
                    source.model, change=plan.change, train_mode=options.train_mode,
                    **plan.measuring, **batch,
                ))  # fmt: skip
            progress((k + 1) / len(plan.batches))
    except KeyboardInterrupt:
        if source is not plan.source or not profiles:
            raise
        path = joined(profiles).save(Path(options.out) / "probe_interrupted.nc")
        done = sum(profile.samples for profile in profiles)
        raise KeyboardInterrupt(
            f"{done} texts are kept in {path}; go on with the same options and --resume {path}"
        ) from None
    whole = joined(profiles)
    return replace(whole, facts={**whole.facts, "model": name})


def packages(options: argparse.Namespace) -> tuple[str, ...]:
    gguf = options.model == "smollm2" or options.model.endswith(".gguf")
    return (*PACKAGES, "gguf", "accelerate") if gguf else PACKAGES


COMMAND = Command(
    name="probe",
    description="Is a real model collapsing, layer by layer? Measure its hidden states and heads.",
    add_options=add_options,
    prepare=prepare,
    compute=compute,
    packages=packages,
    examples=EXAMPLES,
    label="texts",
    reports=True,
)
main = COMMAND.main
