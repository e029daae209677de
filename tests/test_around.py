"""What stands around attention: element-wise norms, placements, weights of skip and branch, gates;
every engine and the derivative against torch written from the formulas."""

import naive
import numpy as np
import pytest
import torch
from torch.nn import functional

import dynsim
from dynsim import AttentionDynamics, gates, masks, mlp, norms, residual, tokens
from dynsim.engines import compiled, logscale, preferred
from dynsim.equilibria import certify
from dynsim.equilibria.stability import check_equilibria_possible
from dynsim.network.jacobian import image, jacobian, jvp
from dynsim.network.parts import check_alike
from dynsim.network.weights import (
    Fixed,
    Gaussian,
    Layers,
    LayerWeights,
    Orthogonal,
    Weights,
    Zero,
)
from dynsim.results.definition import Definition

N, D, LAYERS, HEADS = 6, 5, 4, 2
DRAW = np.random.default_rng(5).uniform
GAIN, BIAS, ALPHA = DRAW(0.5, 1.5, D), DRAW(-1, 1, D), DRAW(0.1, 0.9, (LAYERS, D))
LISTS = DRAW(0.3, 1.5, (2, LAYERS))


def layer_norm(x):
    return functional.layer_norm(x, (D,), torch.tensor(GAIN), torch.tensor(BIAS), 1e-5)


def unit(x):
    return x / x.norm(dim=-1, keepdim=True)


def dyt(x):
    return torch.tensor(GAIN) * torch.tanh(0.7 * x) + torch.tensor(BIAS)


def derf(x):
    return torch.tensor(GAIN) * torch.erf(0.7 * x - 0.2) + torch.tensor(BIAS)


#: What is tried, beside x' of layer t (l = t + 1) in torch: step(x, t, f) for a branch f, from the
#: papers' formulas.
LN = norms.LayerNorm(GAIN, BIAS)
CASES = {
    "dyt post": (
        {"norm": norms.DyT(0.7, GAIN, BIAS), "skip": 1.0},
        lambda x, t, f: dyt(x + f(x)),
    ),
    "derf pre": (
        {"norm": norms.Derf(0.7, -0.2, GAIN, BIAS), "placement": "pre", "skip": 1.0},
        lambda x, t, f: x + f(derf(x)),
    ),
    "sandwich": (
        {"norm": norms.DyT(0.7, GAIN, BIAS), "placement": "sandwich", "skip": 1.0},
        lambda x, t, f: x + dyt(f(dyt(x))),
    ),
    "mix-ln": (
        {"norm": LN, "placement": residual.mix_ln(0.25, layers=LAYERS), "skip": 1.0},
        lambda x, t, f: layer_norm(x + f(x)) if t < 1 else x + f(layer_norm(x)),
    ),
    "ngpt": (
        {"norm": norms.Unit(), "placement": "ngpt", "skip": residual.lerp(0.3)},
        lambda x, t, f: unit(x + 0.3 * (unit(f(x)) - x)),
    ),
    "ngpt, a rate for each dimension": (
        {"norm": norms.Unit(), "placement": "ngpt", "skip": residual.lerp(ALPHA[0])},
        lambda x, t, f: unit(x + torch.tensor(ALPHA[0]) * (unit(f(x)) - x)),
    ),
    "ngpt, a rate for each layer and dimension": (
        {"norm": norms.Unit(), "placement": "ngpt", "skip": residual.lerp(ALPHA)},
        lambda x, t, f: unit(x + torch.tensor(ALPHA[t]) * (unit(f(x)) - x)),
    ),
    "layer scale": (
        {"norm": LN, "placement": "pre", "skip": residual.layer_scale(0.1)},
        lambda x, t, f: x + 0.1 * f(layer_norm(x)),
    ),
    "layer scale by dimension": (
        {"norm": LN, "placement": "pre", "skip": residual.layer_scale(ALPHA[1])},
        lambda x, t, f: x + f(layer_norm(x)) @ torch.diag(torch.tensor(ALPHA[1])),
    ),
    "deepnorm": (
        {"norm": LN, "skip": residual.deepnorm(LAYERS)},
        lambda x, t, f: layer_norm((2 * LAYERS) ** 0.25 * x + f(x)),
    ),
    "lambda-skip by layer": (
        {"norm": LN, "skip": residual.by_layer(LISTS[0])},
        lambda x, t, f: layer_norm(LISTS[0, t] * x + f(x)),
    ),
    "lists for both": (
        {"norm": LN, "placement": "peri", "skip": residual.by_layer(*LISTS)},
        lambda x, t, f: LISTS[0, t] * x + LISTS[1, t] * layer_norm(f(layer_norm(x))),
    ),
    "branches alone": (
        {"skip": residual.by_layer(0.0, LISTS[1])},
        lambda x, t, f: LISTS[1, t] * f(x),
    ),
    "depth scaled": (
        {"norm": LN, "placement": "pre", "skip": residual.depth_scaled(LAYERS)},
        lambda x, t, f: x + f(layer_norm(x)) / LAYERS**0.5,
    ),
    "ln scaling": (
        {"norm": norms.ln_scaling(LN, LAYERS), "placement": "pre", "skip": 1.0},
        lambda x, t, f: x + f(layer_norm(x) / (t + 1) ** 0.5),
    ),
}  # fmt: skip
GATED = {
    "none": gates.NoGate(),
    "entries": gates.GaussianGate(1.5, 0.3, seed=4),
    "heads": gates.GaussianGate(headwise=True, shared=True, seed=4),
}


def thin_layers(rng, d=D, value=3):
    """Heads with query biases, thin keys and values, and an output bias."""
    draw = rng.standard_normal
    return Layers(tuple(
        LayerWeights(
            draw((HEADS, d, 2)), draw((HEADS, 2)), draw((HEADS, d, 2)),
            draw((HEADS, d, value)), draw((HEADS, value, d)), draw(d),
        ) for _ in range(LAYERS)
    ))  # fmt: skip


def branch(dynamics, layer, gate):
    """Attention with its gate, in torch from the formulas: sdpa, sigmoid, and no code of ours."""
    allowed = torch.tensor(dynamics.allowed())
    tensors = [torch.tensor(a) for a in layer]
    query, query_bias, key, value, output, output_bias = tensors

    def f(x):
        out = output_bias
        for h in range(len(query)):
            q = x @ query[h] + query_bias[h]
            k = x @ key[h] if key.numel() else x
            v = x @ value[h] if value.numel() else x @ output[h]
            Y = functional.scaled_dot_product_attention(q, k, v, allowed, scale=1.0)
            if gate is not None:
                Y = Y * torch.sigmoid(x @ torch.tensor(gate.W[h]) + torch.tensor(gate.b[h]))
            out = out + (Y @ output[h] if value.numel() else Y)
        return out

    return f


def in_torch(dynamics, step, x, t):
    """Layer t on tokens x (a tensor), by the formula `step` of a case."""
    layer = dynamics.weights.layer(t, D)
    gate = dynamics.gate_of(layer, t) if dynamics.gate.active else None
    x = step(x, t, branch(dynamics, layer, gate))
    if dynamics.mlp.active:
        W_1, b_1, W_2, b_2 = (torch.tensor(a) for a in dynamics.mlp.layer(t, D))
        x = step(x, t, lambda z: functional.gelu(z @ W_1 + b_1) @ W_2 + b_2)
    return x


def run(dynamics, x0, layers=LAYERS, **options):
    record = dynsim.Record(measures=())
    return dynsim.simulate(dynamics, x0, layers, record=record, threads=1, **options)


def engines_for(dynamics):
    found = ["reference", "torch"]
    found += ["numba"] * (compiled.reason_against(dynamics) is None)
    return found + ["logscale"] * (logscale.reason_against(dynamics, np.float64) is None)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("gate", GATED)
def test_every_engine_agrees_with_torch_written_from_the_formulas(name, gate, rng):
    parts, step = CASES[name]
    weights = thin_layers(rng) if gate != "heads" else Weights(seed=2, n_heads=1, shared=True)
    perceptrons = [mlp.NoMLP(), mlp.GaussianMLP(seed=3)] if gate == "none" else [mlp.NoMLP()]
    x0 = tokens.gaussian(3, N, D, seed=1)
    for perceptron in perceptrons:
        dynamics = AttentionDynamics(
            masks.causal(N), weights, mlp=perceptron, gate=GATED[gate], **parts
        )
        x = torch.tensor(x0)
        for t in range(LAYERS):
            x = torch.stack([in_torch(dynamics, step, sample, t) for sample in x])
        engines = engines_for(dynamics)
        assert ("numba" in engines) == (gate == "none")
        elementwise = isinstance(dynamics.norm, norms.ElementwiseNorm)
        plain = not perceptron.active and gate == "none" and not elementwise
        assert ("logscale" in engines) == (plain and dynamics.residual.are_numbers)
        for engine in engines:
            found = run(dynamics, x0, engine=engine).final
            assert np.allclose(found, x, rtol=1e-11, atol=1e-12), engine
            if engine != "logscale":
                single = run(dynamics, x0[0].astype(np.float32), engine=engine).final
                assert single.dtype == np.float32
                assert np.allclose(single[0], x[0], rtol=1e-3, atol=1e-4), engine


def test_every_engine_agrees_with_the_naive_twins_of_gates(rng):
    weights = thin_layers(rng, value=7)  # wider than the tokens
    gate = gates.GaussianGate(seed=1)
    dynamics = AttentionDynamics(masks.local(N), weights, LN, "peri", 0.5, gate=gate)
    x0 = rng.standard_normal((2, N, D))
    expected = []
    for x in x0:
        for t in range(LAYERS):
            layer = weights.layer(t, D)
            of_gate = gate.layer(t, HEADS, D, 7)
            heads = [
                (M, V, O_h, column)
                for (M, _, column), V, O_h in zip(
                    naive.heads_of(layer), layer.value, layer.output, strict=True
                )
            ]

            def attend(z, layer=layer, heads=heads, of_gate=of_gate):
                pairs = list(zip(*of_gate, strict=True))
                return naive.gated(z, heads, pairs, dynamics.allowed(), layer.output_bias)

            def norm(z):
                return naive.normalise(z, "layernorm", GAIN, BIAS, 1e-5)

            x = naive.sublayer(x, attend, norm, "peri", 0.5)
        expected.append(x)
    for engine in ("reference", "torch"):
        found = run(dynamics, x0, engine=engine).final
        assert np.allclose(found, expected, rtol=1e-11, atol=1e-12)
    t, x = 2, x0[0]
    step = CASES["lists for both"][1]  # peri, whose weights are those of layer t
    same = AttentionDynamics(
        masks.local(N), weights, LN, "peri", residual.by_layer(*LISTS), gate=gate
    )
    exact = torch.autograd.functional.jacobian(
        lambda z: in_torch(same, step, z, t), torch.tensor(x)
    )
    assert np.allclose(jacobian(same, x, t), exact, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("gate", GATED)
def test_the_derivative_agrees_with_automatic_differentiation(name, gate, rng):
    parts, step = CASES[name]
    for weights in (thin_layers(rng), Weights(seed=2)):
        dynamics = AttentionDynamics(
            masks.causal(N), weights, mlp=mlp.GaussianMLP(seed=1), gate=GATED[gate], **parts
        )
        x, v = rng.standard_normal((2, N, D))
        for t in (0, 2):
            exact = torch.autograd.functional.jacobian(
                lambda z, one=dynamics, t=t: in_torch(one, step, z, t), torch.tensor(x)
            ).numpy()
            assert np.allclose(jacobian(dynamics, x, t), exact, rtol=1e-9, atol=1e-10)
            after, moved = jvp(dynamics, x, v, t)
            assert np.allclose(moved, np.einsum("iajb,jb->ia", exact, v), rtol=1e-9, atol=1e-10)
            assert np.allclose(after, dynamics.step(x, t), rtol=1e-11, atol=1e-12)
            both = image(dynamics, np.stack([x, v]), t)
            assert np.allclose(both[1], dynamics.step(v, t), rtol=1e-11, atol=1e-12)
            alone = dynamics.layer(t, D)
            assert alone.is_constant
            assert np.array_equal(alone.step(x), dynamics.step(x, t))


@pytest.mark.parametrize("name", CASES)
def test_states_in_blocks_of_rows_and_lone_tokens_agree_too(name):
    parts, _ = CASES[name]
    for n in (1, 420):  # the second is more numbers than the kernel of lanes takes
        dynamics = AttentionDynamics(masks.causal(n), Weights(seed=1), **parts)
        x0 = tokens.gaussian(2, n, D, seed=4)
        exact = run(dynamics, x0, 3, engine="reference").final
        for engine in ("numba", "torch"):
            found = run(dynamics, x0, 3, engine=engine).final
            assert np.allclose(found, exact, rtol=1e-11, atol=1e-12), engine


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_compiled_functions_are_those_of_the_library(dtype):
    """Over all sizes that there are, with the signs of zero and of infinity, and tiny numbers."""
    x = np.concatenate([[0.0, 1e-37, 1e-20, 0.3, 1.0, 5.0, 40.0, 1e37], np.logspace(-9, 2, 40)])
    x = np.concatenate([x, -x]).astype(dtype)[None, :, None].repeat(4, axis=2)
    alone = Layers((LayerWeights.from_matrices(np.zeros((1, 4, 4)), np.eye(4)[None]),))
    mask = np.eye(x.shape[1])
    tolerance = 4 * np.finfo(dtype).eps
    with np.errstate(over="ignore"):
        for norm in (norms.DyT(1.0), norms.Derf(1.0)):
            dynamics = AttentionDynamics(mask, alone, norm)
            found = run(dynamics, x, 1, engine="numba").final
            assert np.allclose(found[0], norm.apply(x[0]), rtol=tolerance, atol=0)


def test_late_rates_with_weights_of_skip_and_branch_are_those_measured():
    shared = {"value": Gaussian(), "shared": True}
    for network, norm, placement, skip in (
        (Weights(Zero(), **shared), norms.NoNorm(), "post", residual.lerp(0.3)),
        (Weights(Zero(), **shared), norms.NoNorm(), "post", residual.layer_scale(-0.4)),
        (Weights(value=Orthogonal(), shared=True), norms.Unit(), "ngpt", residual.lerp(0.3)),
        (Weights(**shared), norms.LayerNorm(eps=0.0), "ngpt", 0.0),
        (Weights(**shared), norms.RMSNorm(), "ngpt", residual.lerp(0.2)),
    ):
        dynamics = AttentionDynamics(masks.causal(6), network, norm, placement, skip)
        x0 = tokens.gaussian(1, 6, 4, seed=3)
        log_mu = run(dynamics, x0, 3000, engine="logscale")["log10_mu"][0]
        predicted = dynsim.predict(dynamics, x0)
        assert predicted.power == 0
        measured = 10 ** ((log_mu[3000] - log_mu[1000]) / 2000)
        assert measured == pytest.approx(predicted.rate, rel=2e-3), (placement, skip)


def test_infinite_width_follows_weights_and_placements_of_every_layer():
    n, d, depth = 12, 768, 4
    x0 = tokens.gaussian(1, n, d, seed=1)
    for placement, skip in (
        (residual.mix_ln(0.5, layers=depth), 1.0),
        ("ngpt", residual.lerp(0.4)),
        ("pre", residual.by_layer([1.0, 0.5, 1.5, 1.0], [1.0, 0.3, 2.0, 0.5])),
    ):
        dynamics = AttentionDynamics(
            masks.causal(n), Weights(Zero(), seed=3), norms.RMSNorm(), placement, skip
        )
        wide = dynsim.gram.infinite_width(dynamics, x0, depth)
        found = run(dynamics, x0, depth)
        assert np.allclose(wide.mu, found["mu"], rtol=0.06)
        assert np.allclose(wide.frobenius_norm, found["frobenius_norm"], rtol=0.06)


REFUSED = {
    "a late rate": lambda dynamics, x: dynsim.predict(dynamics, x),
    "infinite width": lambda dynamics, x: dynsim.gram.infinite_width(dynamics, x, 2),
    "a bound": lambda dynamics, x: dynsim.bounds.mu_bounds(dynamics, x, 2),
    "an equilibrium": lambda dynamics, x: check_equilibria_possible(dynamics),
    "a certificate": lambda dynamics, x: certify(dynamics, x),
    "the transversal exponent": lambda dynamics, x: dynsim.lyapunov.transversal(dynamics, x[0]),
    "the cubic law": lambda dynamics, x: dynsim.predictions.cubic_step(dynamics, x, x[0]),
}


@pytest.mark.parametrize(
    ("field", "value", "known"),
    [
        ("norm", norms.DyT(), {"the transversal exponent"}),
        ("norm", norms.Derf(), {"the transversal exponent"}),
        ("gate", gates.GaussianGate(shared=True), {"an equilibrium"}),
        ("skip", residual.layer_scale((0.1,) * D), {"an equilibrium"}),
        ("skip", residual.by_layer([1.0, 0.5]), {"infinite width"}),
        ("placement", ("post", "pre"), {"infinite width", "the cubic law"}),
    ],
)
def test_what_rests_on_the_papers_layers_refuses_parts_by_name(field, value, known, rng):
    parts = {"norm": norms.Unit(), "skip": 0.0} | {field: value}
    x = tokens.sphere(1, N, D, 1)[0]
    for name, call in REFUSED.items():
        network = Weights(Zero(), seed=1, shared=name != "infinite width")
        dynamics = AttentionDynamics(masks.complete(N), network, **parts)
        if name in known:
            call(dynamics, x)
        else:
            with pytest.raises(ValueError, match=rf"{field}=|skip|layers") as caught:
                call(dynamics, x)
            assert "\n" not in str(caught.value)


def test_engines_say_what_they_lack(rng):
    x = rng.standard_normal((N, D))
    gated = AttentionDynamics(masks.causal(N), Weights(), gate=gates.GaussianGate())
    assert preferred(gated, np.float64)[0] == "torch"
    with pytest.raises(ValueError, match=r"numba engine does not apply: .*gate=.*engine='torch'"):
        dynsim.simulate(gated, x, 2)
    smooth = AttentionDynamics(masks.causal(N), Weights(), norms.DyT())
    assert preferred(smooth, np.float64)[0] == "numba"
    with pytest.raises(ValueError, match=r"logscale engine does not apply: .*DyT.*engine='numba'"):
        dynsim.simulate(smooth, x, 2, engine="logscale")


@pytest.mark.parametrize("name", CASES)
def test_files_hold_the_parts_and_runs_go_on_from_them(name, tmp_path):
    parts, _ = CASES[name]
    gate = gates.FixedGate(gates.GateWeights(np.ones((1, D, D)), np.zeros((1, D))))
    for more in ({}, {"gate": gate}, {"gate": gates.GaussianGate(2.0, headwise=True)}):
        dynamics = AttentionDynamics(masks.causal(N), Weights(seed=3), **parts, **more)
        assert Definition.of(dynamics).dynamics() == dynamics
        assert repr(dynamics)
    x0 = tokens.gaussian(2, N, D)
    dynamics = AttentionDynamics(masks.causal(N), Weights(seed=3), **parts)
    whole = run(dynamics, x0)
    first = dynsim.load(run(dynamics, x0, 2).save(tmp_path / "run.nc"))
    rest = run(first.rebuild_dynamics(), first.state, LAYERS - 2, start=2)
    assert np.array_equal(rest.final, whole.final)


def test_parts_are_checked_where_they_are_made():
    weights, mask = Weights(), masks.causal(3)
    for call, words in (
        (lambda: residual.Residual(np.nan), "skip weight is finite"),
        (lambda: residual.Residual(1.0, np.ones((2, 3, 4))), "row for each layer"),
        (lambda: residual.by_layer([1.0, 2.0], [1.0] * 3), "2 of the skip connection and 3"),
        (lambda: residual.deepnorm(0), "at least 1"),
        (lambda: residual.mix_ln(1.5, layers=3), "from 0 to 1"),
        (lambda: norms.DyT(np.inf), "a of DyT is finite"),
        (lambda: norms.Derf(s=np.nan), "s of Derf is finite"),
        (lambda: norms.DyT(gain=np.ones(3)).check(4), "one entry per dimension"),
        (lambda: norms.ln_scaling(norms.Unit(), 3), "has none; use RMSNorm"),
        (lambda: norms.DyT().switches(4), "entry by entry"),
        (lambda: gates.GaussianGate(-1.0), "not negative"),
        (lambda: gates.FixedGate(()), "one or more"),
        (
            lambda: gates.FixedGate(gates.GateWeights(np.ones((1, 2, 3)), np.ones((1, 2)))),
            r"b \(heads, q\)",
        ),
        (lambda: AttentionDynamics(mask, weights, placement=()), "one or more names"),
        (lambda: AttentionDynamics(mask, weights, placement=("post", "pots")), "did you mean"),
        (lambda: AttentionDynamics(mask, weights, skip="1"), "real numbers"),
        (lambda: AttentionDynamics(mask, weights, gate="gaussian"), "a gate is an object"),
        (
            lambda: AttentionDynamics(
                mask, weights, placement=("post",) * 3, skip=residual.by_layer([1, 2])
            ),
            "same layers; got placements for 3, weights of skip and branch for 2",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    x = np.ones((3, 2))
    for parts, words in (
        ({"skip": residual.lerp(np.ones(3))}, "one entry per dimension; got 3"),
        (
            {"gate": gates.FixedGate(gates.GateWeights(np.ones((1, 3, 3)), np.ones((1, 3))))},
            "gate is for dimension 3",
        ),
        (
            {"gate": gates.FixedGate(gates.GateWeights(np.ones((2, 2, 1)), np.ones((2, 1))))},
            "for 1 heads",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            AttentionDynamics(mask, weights, **parts).check_tokens(x)
    three = AttentionDynamics(mask, weights, skip=residual.by_layer([1.0, 2.0, 3.0]))
    assert three.n_layers == 3
    with pytest.raises(ValueError, match="for 3 layers"):
        dynsim.simulate(three, x, 4)
    with pytest.raises(ValueError, match="differ by layer"):
        check_alike(three, "this")


def test_sandwich_is_peri_and_numbers_stay_numbers():
    sandwich = AttentionDynamics(masks.causal(3), Weights(), LN, "sandwich", 1.0)
    assert sandwich == AttentionDynamics(masks.causal(3), Weights(), LN, "peri", 1.0)
    assert sandwich.skip == 1.0
    assert isinstance(sandwich.skip, float)
    assert "gate" not in sandwich.description
    assert residual.read_skip("0.5") == 0.5
    assert residual.read_skip("1,0.5") == residual.by_layer([1.0, 0.5])
    assert residual.by_layer([0.5]).n_layers is None
    assert residual.by_layer([0.5], [1.0, 2.0]).layer(1) == (0.5, 2.0)


def test_an_element_wise_norm_has_no_size_to_divide_by():
    """Zero and huge tokens are as good as others, and a run of zeros stays where it is."""
    dynamics = AttentionDynamics(masks.causal(3), Fixed(np.eye(2), np.eye(2)), norms.DyT())
    assert not run(dynamics, np.zeros((3, 2)), 3).final.any()
    assert not norms.DyT().undefined(np.zeros((3, 2))).any()
    assert np.array_equal(norms.DyT(1.0).apply(np.array([1e300, -1e300])), [1.0, -1.0])
