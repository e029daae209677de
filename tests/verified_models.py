"""Which architectures are measured, changed and converted: the table in dynsim/models/README.md.

Each cell is tried on a small model with random weights, or on a real one, by a property that does
not depend on how dynsim does it. To write the table anew:

    DYNSIM_WRITE=1 python -m pytest tests/test_models_table.py
"""

import contextlib
import dataclasses
import itertools
import math
import re
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from torch import nn

import dynsim
from dynsim import models
from dynsim.models import Change
from dynsim.models.architecture import find_stacks

README = Path(__file__).parents[1] / "dynsim" / "models" / "README.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->"
POINTS = (
    "embeddings", "layers_output", "attentions_input", "attentions_output", "mlps_output"
)  # fmt: skip
#: Weights of the last map of self-attention, and of MLPs.
_ATTENTION_OUT = re.compile(
    r"(attention\.(output\.)?dense|out_lin|attn\.c_proj|SelfAttention\.o|o_proj|out_proj)\.weight$"
)
_MLP = re.compile(r"(mlp\.|intermediate\.dense|ffn|DenseReluDense|\d\.output\.dense|linear\d).*t$")


@dataclasses.dataclass
class Case:
    """A model with inputs of equal length, its own mask, and the stack of blocks that is tried."""

    name: str
    model: nn.Module
    inputs: dict
    mask: Change = dataclasses.field(default_factory=lambda: Change(mask="complete"))
    blocks: str | None = None
    bias: bool = False  # of scores, by position: attention is not uniform without scores

    @property
    def stack(self):
        return find_stacks(self.model, self.blocks)[-1]

    def varied(self):
        """The same inputs with another last token."""
        inputs = {key: x.clone() for key, x in self.inputs.items()}
        key = next(k for k in ("decoder_input_ids", "input_ids", "pixel_values", "x", "src")
                   if k in inputs)  # fmt: skip
        last = inputs[key][:, :, -4:, -4:] if key == "pixel_values" else inputs[key][:, -1]
        last.copy_(-last if last.is_floating_point() else last % 58 + 1)
        return inputs

    def states(self, change=None, inputs=None):
        """Input of the first block and output of every block, each (samples, N, d)."""
        seen, blocks = [], self.stack.blocks

        def enter(module, args, kwargs):
            if not seen:
                seen.append((args or tuple(kwargs.values()))[0])

        def leave(module, args, out):
            seen.append(out[0] if isinstance(out, tuple) else out)

        handles = [blocks[0].register_forward_pre_hook(enter, with_kwargs=True)]
        handles += [block.register_forward_hook(leave) for block in dict.fromkeys(blocks)]
        changed = (change or Change()).applied(self.model, self.blocks)
        with torch.no_grad(), changed:
            self.model(**(self.inputs if inputs is None else inputs))
        for handle in handles:
            handle.remove()
        return [x.double().numpy() for x in seen]

    @contextlib.contextmanager
    def scaled(self, pattern, factor):
        """Weights of the stack whose names fit, times a factor, for a while."""
        blocks = self.model.get_submodule(self.stack.name)
        named = ((f"0.{name}", p) for name, p in blocks.named_parameters())
        weights = [p for name, p in named if pattern.search(name)]
        assert weights, f"{self.name}: no weight is called {pattern.pattern}"
        before = [weight.detach().clone() for weight in weights]
        try:
            for weight in weights:
                weight.data *= factor
            yield
        finally:
            for weight, old in zip(weights, before, strict=True):
                weight.data = old


# --- what is tried ------------------------------------------------------------------------------


def _close(a, b, rtol=1e-5):
    return np.abs(a - b).max() <= rtol * np.abs(b).max()


def points(case):
    """Every point is found in every block, and what is measured there is of the states."""
    profile = dynsim.probe(case.model, points=POINTS, **case.inputs)
    states, stack = case.states(), profile.stacks[-1]
    for point in POINTS[1:]:
        assert len(profile.states[stack, point]["mu"]) == len(states) - 1, point
    centred = [x - x.mean(axis=1, keepdims=True) for x in states]
    mu = [np.linalg.norm(x, axis=(1, 2)) for x in centred]
    assert np.allclose(profile.residual("mu"), mu, rtol=1e-5)


def heads(case):
    """Every head of every block has a distribution over the tokens."""
    statistics = dynsim.probe(case.model, **case.inputs).heads[case.stack.name]
    assert len(statistics["entropy"]) == len(case.states()) - 1
    assert np.allclose(statistics["row_mass"], 1.0, atol=1e-4)
    assert (statistics["entropy"] >= 0).all()


def unchanged(case):
    """Nothing changed gives the model's own bits; its own mask, given anew, its own numbers."""
    own = case.states()
    assert all(map(np.array_equal, case.states(Change()), own))
    assert all(map(_close, case.states(case.mask), own))


def mask(case):
    """News of the last token reaches the first under the complete mask, not through a window."""
    for change, reached in ((Change(mask="complete"), True), (Change(mask="local"), False)):
        first, other = (case.states(change, x)[-1][:, 0] for x in (case.inputs, case.varied()))
        assert _close(first, other, 1e-6) != reached, change.mask


def beta(case):
    """Without scores attention is uniform, unless there is a bias; sharper, its entropy falls."""

    def entropy(factor):
        changed = Change(mask="complete", beta=factor).applied(case.model, case.blocks)
        with torch.no_grad(), dynsim.trace(case.model, blocks=case.blocks) as traced, changed:
            case.model(**case.inputs)
        return traced.profile.heads[case.stack.name]["entropy"][0].mean()

    n = case.states()[0].shape[1]
    assert case.bias or math.isclose(entropy(0), math.log(n), rel_tol=1e-5)
    assert entropy(0) > entropy(1) > entropy(4)


def norm(case):
    """Norms of a block return their input, but for those of cross-attention, queries and keys."""
    kept = []

    def hook(module, args, out):
        kept.append(torch.equal(args[0], out))

    block = case.stack.blocks[0]
    norms = [
        module
        for name, module in block.named_modules()
        if "norm" in type(module).__name__.lower() and not re.search(r"[qk]_norm|layer\.1\.", name)
    ]
    handles = [m.register_forward_hook(hook) for m in norms]
    try:
        with contextlib.suppress(FloatingPointError):
            case.states(Change(norm="off"))
    finally:
        for handle in handles:
            handle.remove()
    assert len(kept) >= 2
    assert all(kept)


def skip(case):
    """Attention that gives every token the same makes them alike after the first block."""
    with case.scaled(_ATTENTION_OUT, 0.0):
        after = [case.states(change)[1] for change in (Change(skip="off"), Change())]
    alike = [np.ptp(x, axis=1).max() <= 1e-5 * np.abs(x).max() for x in after]
    assert alike == [True, False]


def mlp(case):
    """The weights of MLPs make no difference."""
    differs = []
    for change in (Change(mlp="off"), Change()):
        before = case.states(change)[1]
        with case.scaled(_MLP, 0.5):
            differs.append(not np.array_equal(case.states(change)[1], before))
    assert differs == [False, True]


def conversion(case):
    """Every layer of the dynamics gives what the block does, to the accuracy of float32."""
    states = case.states()
    dynamics = models.dynamics(case.model, states[0].shape[1])
    for t, (x, after) in enumerate(itertools.pairwise(states)):
        assert all(map(_close, (dynamics.step(sample, t) for sample in x), after)), t


COLUMNS = {
    "points": points, "heads": heads, "unchanged": unchanged, "mask": mask, "β": beta,
    "norm off": norm, "skip off": skip, "MLP off": mlp, "conversion": conversion,
}  # fmt: skip


# --- models -------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.heads, self.qkv, self.out_proj = heads, nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        A = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)
        return self.out_proj((A @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    def __init__(self, d, heads):
        super().__init__()
        self.attn, self.norm_1, self.norm_2 = Attention(d, heads), nn.LayerNorm(d), nn.LayerNorm(d)
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, x):
        x = x + self.attn(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


class HandWritten(nn.Module):
    """As people write them: a list of blocks, tokens in, tokens out."""

    def __init__(self, d=32, heads=4, depth=3):
        super().__init__()
        self.blocks = nn.ModuleList(Block(d, heads) for _ in range(depth))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def _tiny(name):
    case = Case(name, tiny_models.make(name, None), tiny_models.inputs(name))
    if name == "T5":
        case.blocks, case.bias, case.mask = "decoder.block", True, Change(mask="causal")
    elif name == "Mistral":
        window = case.model.config.sliding_window - 1
        case.mask = Change(mask="causal-local", mask_options={"window": window})
    elif name in tiny_models.DECODERS:
        case.mask = Change(mask="causal")
    return case


def _torchs():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        x = torch.randn(2, 9, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
        return Case("torch.nn.TransformerEncoder", model, {"src": x})


def _hand_written():
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return Case("a hand-written module", HandWritten().eval(), {"x": 2 * torch.randn(2, 9, 32)})


def _real(name, short, n):
    def case():
        try:
            source = models.load_model(short)
        except ValueError as error:
            pytest.skip(str(error))
        inputs = models.excerpts(source, README.read_text(encoding="utf-8"), n, 1)
        own = "causal" if short == "smollm2" else "complete"
        return Case(name, source.model, inputs, Change(mask=own))

    return case


#: How each row's model is made. A window of 1 takes as many layers as tokens to reach them all.
CASES = {
    **{name: lambda name=name: _tiny(name) for name in tiny_models.CONFIGS},
    "a hand-written module": _hand_written,
    "torch.nn.TransformerEncoder": _torchs,
    "all-MiniLM-L6-v2 (BERT)": _real("all-MiniLM-L6-v2 (BERT)", "minilm", 12),
    "SmolLM2-135M (Llama, GGUF)": _real("SmolLM2-135M (Llama, GGUF)", "smollm2", 33),
}


# --- the table ----------------------------------------------------------------------------------


def row(name):
    """The cells of a model: "yes", or "no: " and why."""
    case, cells = CASES[name](), []
    for attempt in COLUMNS.values():
        try:
            attempt(case)
            cells.append("yes")
        except ValueError as refusal:
            reason = re.sub(r"^\S+ \(of type \S+\) ", "", str(refusal)).split("; ")[0]
            cells.append(f"no: {reason}")
    return cells


def read():
    """The rows of the table as it stands, by name; empty where there is none."""
    text = README.read_text(encoding="utf-8")
    if BEGIN not in text:
        return {}
    lines = text.split(BEGIN)[1].split(END)[0].splitlines()
    notes = dict(re.findall(r"^\[(\d+)\] (.+)$", "\n".join(lines), re.MULTILINE))
    rows = {}
    for line in lines[2:]:
        if line.startswith("|"):
            name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
            rows[name] = [re.sub(r"no \[(\d+)\]", lambda m: f"no: {notes[m[1]]}", c) for c in cells]
    return rows


def write(rows):
    """The table with these rows in place of those that it has."""
    rows = {name: (read() | rows)[name] for name in CASES if name in read() | rows}
    reasons = list(dict.fromkeys(c[4:] for cells in rows.values() for c in cells if c != "yes"))
    lines = [f"| model | {' | '.join(COLUMNS)} |", f"|---{'|---' * len(COLUMNS)}|"]
    for name, cells in rows.items():
        shown = (c if c == "yes" else f"no [{reasons.index(c[4:]) + 1}]" for c in cells)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    lines += ["", *(f"[{k}] {reason}" for k, reason in enumerate(reasons, 1))]
    text = README.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    README.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after, encoding="utf-8")
