"""Dropout: what is dropped, where, and that no way of running changes it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dynsim
from dynsim import AttentionDynamics, Dropout, Overflow, Record, masks, mlp, norms, simulate, tokens
from dynsim.cli.run import main
from dynsim.engines import preferred
from dynsim.network.dropout import PLACES
from dynsim.network.dynamics import PLACEMENTS
from dynsim.network.weights import Diagonal, Identity, Jordan, Weights, Zero
from dynsim.results.trajectory import joined, load
from tests import naive

BOTH = Dropout(hidden=0.3, attention=0.4, seed=5)


def kept_naively(dropout, place, t, sample, size):
    """Entry k stays when 32-bit number k of the stream is p 2^32 or more; two to a 64-bit draw."""
    key = (4, t, sample, PLACES[place])
    bits = np.random.default_rng(np.random.SeedSequence(dropout.seed, spawn_key=key)).bit_generator
    numbers = []
    while len(numbers) < size:
        draw = int(bits.random_raw())
        numbers += [draw & 0xFFFFFFFF, draw >> 32]
    p = dropout.attention if place == "attention" else dropout.hidden
    return np.array([number >= p * 2**32 for number in numbers[:size]])


def step_naively(dynamics, x, t, sample):
    """One layer by loops, from the definition of dropout in the docstring and torch's manual."""
    allowed, dropout, layer = (
        dynamics.allowed(),
        dynamics.dropout,
        dynamics.weights.layer(t, x.shape[1]),
    )
    kind = {"NoNorm": "none", "Unit": "unit", "LayerNorm": "layernorm"}[
        type(dynamics.norm).__name__
    ]
    eps = getattr(dynamics.norm, "eps", 0.0)

    def norm(z):
        return naive.normalise(z, kind, eps=eps)

    def dropped(z, place):
        p = dropout.attention if place == "attention" else dropout.hidden
        kept = kept_naively(dropout, place, t, sample, z.size).reshape(z.shape) if p else 1.0
        return z * kept / (1.0 - p)

    def attend(z):
        out, heads = np.zeros_like(z), naive.heads_of(layer)
        every = np.array([naive.attention_matrix(z, M, allowed)[allowed] for M, _, _ in heads])
        for entries, (_, W_V, _) in zip(dropped(every, "attention"), heads, strict=True):
            A, numbers = np.zeros(allowed.shape), iter(entries)
            for i in range(len(A)):
                for j in range(len(A)):
                    A[i, j] = next(numbers) if allowed[i, j] else 0.0
            out += A @ z @ W_V
        return dropped(out, "projection")

    def perceive(z):
        return dropped(naive.perceptron(z, *dynamics.mlp.layer(t, z.shape[1]), "relu"), "mlp")

    x = naive.sublayer(x, attend, norm, dynamics.placement, dynamics.skip)
    if not dynamics.mlp.active:
        return x
    return naive.sublayer(x, perceive, norm, dynamics.placement, dynamics.skip)


def make(dropout=BOTH, mask=None, norm=norms.LayerNorm(), **options):  # noqa: B008
    weights = options.pop("weights", Weights(n_heads=2))
    return AttentionDynamics(mask or masks.bigbird(12), weights, norm, dropout=dropout, **options)


@settings(max_examples=40)
@given(
    mask=st.sampled_from(["complete", "causal", "local", "star", "bigbird"]),
    norm=st.sampled_from([norms.NoNorm(), norms.LayerNorm()]),
    placement=st.sampled_from(list(PLACEMENTS)),
    skip=st.sampled_from([0.0, 0.6]),
    perceptron=st.sampled_from([mlp.NoMLP(), mlp.GaussianMLP("relu")]),
    hidden=st.sampled_from([0.0, 0.2, 0.7]),
    attention=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 2**16),
)
def test_the_definition_and_every_engine_drop_the_same_entries(
    mask, norm, placement, skip, perceptron, hidden, attention, seed
):
    dynamics = AttentionDynamics(
        masks.MASKS[mask](7), Weights(n_heads=2, seed=seed), norm, placement, skip, perceptron,
        dropout=Dropout(hidden, attention, seed),
    )  # fmt: skip
    x = tokens.gaussian(2, 7, 4, seed)
    for sample in (0, 3):
        expected = step_naively(dynamics, x[1], 2, sample)
        assert np.allclose(dynamics.step(x[1], 2, sample), expected, rtol=1e-11, atol=1e-12)
    exact = simulate(dynamics, x, 3, engine="reference", start=1, first_sample=4).final
    size = np.abs(exact).max()
    engines = ["torch"] if attention else ["torch", "numba"]
    for engine in engines:
        found = simulate(dynamics, x, 3, engine=engine, start=1, first_sample=4).final
        assert np.abs(found - exact).max() <= 1e-9 * size, engine
    assert not hidden or not np.allclose(
        simulate(dynamics, x, 3, engine="reference", start=1).final, exact
    )


@pytest.mark.parametrize("name", ["complete", "causal", "local", "bigbird", "block-sparse"])
def test_tiles_drop_the_entries_of_the_definition(name):
    """600 tokens are several tiles, and a small budget cuts samples, heads and tiles."""
    from dynsim.engines import make_engine

    dynamics = make(mask=masks.MASKS[name](600), weights=Weights(n_heads=2, shared=True))
    x = tokens.gaussian(2, 600, 8)
    exact = make_engine("reference", dynamics, 1).advance(x, 0, 1)[0]
    for budget in (2**26, 2**18):
        engine = make_engine("torch", dynamics, 1, "cpu")
        engine.budget = budget
        assert np.abs(engine.advance(x, 0, 1)[0] - exact).max() < 1e-11


@pytest.mark.parametrize("engine", ["torch", "numba", "reference"])
def test_bits_do_not_depend_on_batch_threads_or_resumption(engine):
    dropout = Dropout(0.3, 0.0 if engine == "numba" else 0.4, 5)
    dynamics, x0 = make(dropout, mlp=mlp.GaussianMLP(), skip=1.0), tokens.gaussian(5, 12, 6)
    whole = simulate(dynamics, x0, 9, engine=engine, threads=1)
    assert np.array_equal(simulate(dynamics, x0, 9, engine=engine, threads=2).final, whole.final)
    first = simulate(dynamics, x0, 4, engine=engine)
    second = simulate(dynamics, first.state, 5, engine=engine, start=4)
    assert np.array_equal(second.final, whole.final)
    assert np.array_equal(joined(first, second)["mu"], whole["mu"])
    assert not np.array_equal(simulate(dynamics, first.state, 5, engine=engine).final, whole.final)
    part = simulate(dynamics, x0[2:4], 9, engine=engine, first_sample=2)
    assert np.allclose(part.final, whole.final[2:4], rtol=1e-9)
    if engine != "torch":  # whose bits depend on the batch
        assert np.array_equal(part.final, whole.final[2:4])
    assert part.provenance["first_sample"] == 2
    with pytest.raises(ValueError, match="go on with first_sample=2"):
        joined(part, simulate(dynamics, part.state, 1, engine=engine, start=9))


def test_float32_tokens_stay_so_and_drop_the_same():
    dynamics, x0 = make(), tokens.gaussian(2, 12, 6)
    exact = simulate(dynamics, x0, 3, engine="reference").final
    for engine in ("torch", "reference"):
        rough = simulate(dynamics, x0.astype(np.float32), 3, engine=engine)
        assert rough.final.dtype == np.float32
        assert np.allclose(rough.final, exact, atol=1e-3)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.999])
def test_shares_and_scale_are_those_of_torch(p):
    torch = pytest.importorskip("torch")
    size = 200_000
    ours = Dropout(hidden=p).scaled(np.ones((1, size)), "projection", 0, 0)
    theirs = torch.nn.Dropout(p)(torch.ones(size, dtype=torch.float64)).numpy()
    assert np.unique(ours) == pytest.approx(np.unique(theirs), rel=1e-6)
    assert (ours == 0).mean() == pytest.approx(p, abs=5 * (p * (1 - p) / size) ** 0.5)


def test_streams_differ_by_seed_layer_sample_and_place():
    keys = [(seed, t, s, place) for seed in (0, 1) for t in (0, 1) for s in (0, 1)
            for place in PLACES]  # fmt: skip
    drawn = {tuple(Dropout(0.5, 0.5, seed).kept(place, t, s, 64)) for seed, t, s, place in keys}
    assert len(drawn) == len(keys)
    assert np.array_equal(BOTH.kept("mlp", 0, 0, 9), BOTH.kept("mlp", 0, 0, 64)[:9])


def test_without_dropout_nothing_changes():
    plain, zero = make(Dropout()), make(Dropout(0.0, 0.0, seed=3))
    assert plain == zero
    assert "dropout" not in plain.description
    assert make().description["dropout"]["hidden"] == 0.3
    assert make() != plain
    x = np.ones((3, 2))
    assert Dropout().scaled(x, "mlp", 0, 0) is x


@pytest.mark.parametrize(
    "options",
    [{"hidden": 1.0}, {"attention": -0.1}, {"hidden": np.nan}, {"hidden": "a"}, {"seed": -1},
     {"seed": 0.5}, {"attention": True}, {"hidden": 0.1j}, {"hidden": [0.1, 0.2]}],
)  # fmt: skip
def test_bad_dropout_is_refused(options):
    with pytest.raises(ValueError, match=r"below 1|real numbers|whole number|one number"):
        Dropout(**options)


def test_a_number_is_no_dropout():
    with pytest.raises(ValueError, match=r"dynsim.Dropout\(hidden=0.1\)"):
        make(0.1)


def shared_layers():
    return AttentionDynamics(
        masks.complete(3), Weights(Zero(), Jordan(2.0), shared=True), norms.Unit(), dropout=BOTH
    )


REFUSED = {
    "mu_bounds": lambda f, x: dynsim.bounds.mu_bounds(f, x, 2),
    "predict": lambda f, x: dynsim.predict(f, x),
    "jacobian": lambda f, x: dynsim.jacobian.jacobian(f, x),
    "image": lambda f, x: dynsim.jacobian.image(f, x),
    "lyapunov": lambda f, x: dynsim.lyapunov.spectrum(f, x),
    "transversal": lambda f, x: dynsim.lyapunov.transversal(f, x[0]),
    "equilibria": lambda f, x: dynsim.equilibria.find_equilibria(f, dim=3),
    "basins": lambda f, x: dynsim.basins.basins(f, 2, dim=3),
    "continuation": lambda f, x: dynsim.continuation.continue_equilibrium(lambda w: f, x, 1, 2),
    "certify": lambda f, x: dynsim.equilibria.certify(f, x),
    "logscale": lambda f, x: simulate(f, x, 2, engine="logscale"),
    "numba": lambda f, x: simulate(f, x, 2, engine="numba"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_determinism_refuses_dropout_in_one_line(name):
    with pytest.raises(ValueError, match=r"ropout|dropped") as refusal:
        REFUSED[name](shared_layers(), np.eye(3))
    assert "\n" not in str(refusal.value)


def test_the_preferred_engine_applies():
    for dropout in (Dropout(0.1), BOTH):
        dynamics = make(dropout)
        name, reason = preferred(dynamics, np.float64)
        assert "dropout" in reason
        assert simulate(dynamics, tokens.gaussian(1, 12, 6), 1, engine=name).depth == 1
    assert preferred(make(Dropout()), np.float64) == ("logscale", None)


def test_tokens_that_overflow_are_reported_with_their_number():
    dynamics = AttentionDynamics(
        masks.complete(2), Weights(Zero(), Identity()), norms.Unit(), dropout=Dropout(0.9)
    )
    with pytest.raises(Overflow, match="has no size left"):
        simulate(dynamics, tokens.gaussian(1, 2, 1), 50, engine="reference")
    growing = replace(dynamics, weights=Weights(Zero(), Diagonal(1e200)), norm=norms.NoNorm())
    with pytest.raises(Overflow, match="stopped being finite"):
        simulate(growing, np.ones((2, 3)), 9, engine="numba")


# --- the command line ---------------------------------------------------------------------------

SMALL = ["--tokens", "6", "--dim", "4", "--samples", "2", "--depth", "6", "--no-figure"]


@pytest.mark.parametrize("engine", ["auto", "torch", "reference"])
def test_a_run_with_dropout_is_saved_and_resumed(tmp_path, capsys, engine):
    command = [*SMALL, "--norm", "layernorm", "--dropout", ".2", "--attention-dropout", ".1",
               "--engine", engine, "--seed", "3"]  # fmt: skip
    assert main([*command, "--out", str(tmp_path), "--name", "whole"]) == 0
    said = capsys.readouterr().out
    assert "dropout 0.2 of projections, 0.1 of attention weights" in said
    assert main([*command, "--out", str(tmp_path), "--name", "part", "--depth", "2"]) == 0
    resume = ["--resume", str(tmp_path / "part.nc"), "--depth", "6", "--no-figure"]
    assert main([*resume, "--out", str(tmp_path), "--name", "on", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["dynamics"]["dropout"] == {
        "type": "Dropout", "hidden": 0.2, "attention": 0.1, "seed": 3,
    }  # fmt: skip
    whole, on = (load(tmp_path / f"{name}.nc") for name in ("whole", "on"))
    assert np.array_equal(whole.final, on.final)
    assert np.array_equal(whole["mu"], on["mu"])


@pytest.mark.parametrize("words", [["--dropout", "1"], ["--attention-dropout", "-.1"],
                                   ["--dropout", "nan"], ["--dropout", "much"]])  # fmt: skip
def test_bad_probabilities_exit_2_before_any_work(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        raise SystemExit(main(["--tokens", "4", *words]))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert words[0] in error
    assert error.count("\n") == 1


def test_dropout_is_compared(tmp_path, capsys):
    command = [*SMALL, "--norm", "layernorm", "--compare", "dropout=0,.5", "--out", str(tmp_path)]
    assert main(command) == 0
    assert "dropout .5" in capsys.readouterr().out


def test_a_resumed_record_is_that_of_the_whole_run():
    dynamics, x0 = make(Dropout(0.2)), tokens.gaussian(2, 12, 6)
    record = Record(stride=1)
    whole = simulate(dynamics, x0, 12, record=record)
    first = simulate(dynamics, x0, 5, record=record)
    second = simulate(dynamics, first.state, 7, record=record, start=5)
    assert joined(first, second) == whole
