"""Infinite width: against naive sums, torch's own layers with dropout, and closed forms."""

import math
from functools import lru_cache

import numpy as np
import pytest

import dynsim
from dynsim import AttentionDynamics, Dropout, masks, mlp, norms, simulate, tokens
from dynsim.collapse.gram import infinite_width
from dynsim.network.weights import Diagonal, Gaussian, Layers, Orthogonal, Weights, Zero

PLAIN = Weights(Zero(), Gaussian())


def noisy(mask, p, norm=norms.LayerNorm(eps=0.0), weights=PLAIN, a=0.0, **options):  # noqa: B008
    return AttentionDynamics(mask, weights, norm, dropout=Dropout(p, a), **options)


def recursion_naively(dynamics, x, depth):
    """mu by depth from the recursion of `dynsim.gram`, by loops; uniform attention."""
    n, d = x.shape
    allowed = dynamics.allowed()
    p, a, skip = dynamics.dropout.hidden, dynamics.dropout.attention, dynamics.skip
    G = [[sum(x[i, k] * x[j, k] for k in range(d)) / d for j in range(n)] for i in range(n)]
    mu = []
    for _ in range(depth + 1):
        total = sum(G[i][i] for i in range(n)) - sum(map(sum, G)) / n
        mu.append(math.sqrt(d * total))
        K = np.zeros((n, n))
        for i in range(n):
            for j in range(n):
                keys = [(k, m) for k in range(n) for m in range(n) if allowed[i, k] & allowed[j, m]]
                K[i, j] = sum(G[k][m] for k, m in keys) / len(keys)
            own = [k for k in range(n) if allowed[i, k]]
            K[i, i] += a / (1 - a) * sum(G[k][k] for k in own) / len(own) ** 2
            K[i, i] /= 1 - p
        K = skip**2 * np.array(G) + K
        G = [[K[i, j] / math.sqrt(K[i, i] * K[j, j]) for j in range(n)] for i in range(n)]
    return np.array(mu)


@pytest.mark.parametrize("name", ["complete", "causal", "local", "star", "bigbird"])
@pytest.mark.parametrize("skip", [0.0, 0.7])
@pytest.mark.parametrize(("p", "a"), [(0.2, 0.0), (0.0, 0.3), (0.1, 0.1)])
def test_it_is_the_recursion(name, skip, p, a):
    x = norms.LayerNorm().apply(tokens.gaussian(1, 6, 5)[0])
    dynamics = noisy(masks.MASKS[name](6), p, a=a, skip=skip)
    expected = recursion_naively(dynamics, x, 4)
    assert np.allclose(infinite_width(dynamics, x, 4).mu[0], expected, rtol=1e-11)


@pytest.mark.parametrize(("n", "d", "p"), [(128, 768, 0.1), (5, 40, 0.3), (2, 8, 0.01)])
def test_the_complete_mask_has_the_closed_form(n, d, p):
    found = infinite_width(noisy(masks.complete(n), p), tokens.gaussian(2, n, d), 4)
    assert found.mu[:, 2:] == pytest.approx(math.sqrt((n - 1) * d * p), rel=1e-12)


def test_the_causal_level_of_bert():
    found = infinite_width(noisy(masks.causal(128), 0.1), tokens.gaussian(1, 128, 768), 200)
    assert found.mu[0, -1] == pytest.approx(105.7, abs=0.05)


@pytest.mark.parametrize("name", ["complete", "causal", "local"])
def test_weak_noise_near_consensus_adds_up(name):
    """mu^2 = d p sum ||C P^t||_F^2, from numpy's matrix powers."""
    n, d, p, depth = 7, 30, 1e-7, 9
    dynamics = noisy(masks.MASKS[name](n), p)
    P = dynamics.allowed() / dynamics.allowed().sum(axis=1, keepdims=True)
    C = np.eye(n) - 1.0 / n
    total = sum(np.linalg.norm(C @ np.linalg.matrix_power(P, t)) ** 2 for t in range(depth))
    equal = np.tile(np.random.default_rng(0).standard_normal(d), (n, 1))
    found = infinite_width(dynamics, equal - equal.mean(), depth).mu[0, -1]
    assert found**2 == pytest.approx(d * p * total, rel=1e-5)


@pytest.mark.parametrize("name", ["complete", "causal"])
def test_torchs_own_layers_with_dropout_stay_at_the_level(name):
    """torch.nn.MultiheadAttention, Dropout and LayerNorm at the sizes of BERT."""
    torch = pytest.importorskip("torch")
    from torch import nn

    n, d, depth = 128, 768, 16
    torch.manual_seed(1)
    x0 = torch.randn(1, n, d)
    mask = None if name == "complete" else torch.ones(n, n, dtype=torch.bool).triu(1)
    levels = []
    with torch.no_grad():
        x = nn.LayerNorm(d)(x0)
        for _ in range(depth):
            attention = nn.MultiheadAttention(d, 12, dropout=0.1, batch_first=True)
            for matrix in (attention.in_proj_weight, attention.out_proj.weight):
                matrix.normal_(0.0, 0.02)
            attention.train()
            y, _ = attention(x, x, x, attn_mask=mask, need_weights=False)
            x = nn.LayerNorm(d)(nn.Dropout(0.1)(y))
            levels.append(float(((x - x.mean(dim=1, keepdim=True)) ** 2).sum() ** 0.5))
    sigma = 0.02 * d**0.5
    weights = Weights(Gaussian(sigma), Gaussian(sigma), 12, mix=(sigma,) * 12)
    dynamics = noisy(masks.MASKS[name](n), 0.1, norms.LayerNorm(), weights, a=0.1)
    predicted = infinite_width(dynamics, nn.LayerNorm(d)(x0).detach().double().numpy(), depth)
    assert levels[0] == pytest.approx(predicted.mu[0, 1], rel=0.03)
    assert np.mean(levels[8:]) == pytest.approx(predicted.mu[0, 9:].mean(), rel=0.02)


@lru_cache(maxsize=24)  # networks of the test below, each under every norm and placement
def drawn(value, heads, seed, layers, d):
    weights = Weights(Gaussian(0.4), value, heads, seed=seed)
    return Layers(tuple(weights.layer(t, d) for t in range(layers)))


@pytest.mark.parametrize("norm", [norms.Unit(), norms.RMSNorm(gain=2.0), norms.LayerNorm()])
@pytest.mark.parametrize("placement", ["post", "pre", "peri"])
@pytest.mark.parametrize("value", [Gaussian(0.9), Orthogonal()])
@pytest.mark.parametrize("heads", [1, 4])
def test_wide_networks_follow_it(norm, placement, value, heads):
    """On average over networks, to four standard errors and three per cent: d is not infinite."""
    n, d = 6, 96
    x = tokens.gaussian(1, n, d) + 0.5  # a mean that LayerNorm takes away

    def make(seed, weights):
        # no row loses all its weights, which a norm of the branch could not scale
        mask = masks.complete(n) if placement == "peri" else masks.causal(n)
        return noisy(mask, 0.2, norm, weights, a=0.1, skip=0.5, placement=placement)

    runs = [
        simulate(
            make(seed, drawn(value, heads, seed, 4, d)), x, 4, engine="reference", first_sample=seed
        )["mu"][0]
        for seed in range(24)
    ]
    found = infinite_width(make(0, Weights(Gaussian(0.4), value, heads)), x, 4).mu[0]
    squares = np.square(runs)
    error = squares.std(axis=0, ddof=1) / len(runs) ** 0.5
    assert np.all(np.abs(squares.mean(axis=0) - found**2) <= 4 * error + 0.03 * found**2)
    assert np.all(error < 0.1 * found**2)


def test_an_inverse_temperature_is_a_larger_variance_of_scores():
    """beta multiplies scores, as sigma^2 of queries and keys does; by layer, too."""
    from dynsim.network.schedules import Listed
    from dynsim.network.weights import Sharpened

    x = norms.RMSNorm().apply(tokens.gaussian(1, 6, 40))

    def found(weights):
        return infinite_width(AttentionDynamics(masks.causal(6), weights, norms.RMSNorm()), x, 2)

    plain, warm = found(Weights(Gaussian(0.8))), found(Weights(Gaussian(0.8), beta=0.25))
    assert np.allclose(warm.mu, found(Weights(Gaussian(0.4))).mu, rtol=1e-12)
    assert warm.spread == pytest.approx(found(Weights(Gaussian(0.4))).spread)
    assert not np.allclose(plain.mu[:, 1:], warm.mu[:, 1:], rtol=1e-3)
    cooling = found(Sharpened(Weights(Gaussian(0.8)), Listed((0.25, 1.0))))
    assert cooling.mu[0, 1] == pytest.approx(warm.mu[0, 1], rel=1e-12)
    assert cooling.mu[0, 2] != pytest.approx(warm.mu[0, 2], rel=1e-4)


def test_networks_whose_layers_differ_follow_it():
    """Norms, skips, branches and temperatures by layer, dropout: the mean of 40 networks, to four
    standard errors and four per cent."""
    from dynsim.network.residual import by_layer
    from dynsim.network.schedules import Listed
    from dynsim.network.weights import Sharpened

    n, d, depth = 6, 128, 4
    norm = norms.PerLayer((norms.RMSNorm(0.7), norms.LayerNorm(), norms.Unit(), norms.RMSNorm()))
    skip = by_layer([0.2, 1.0, 0.5, 2.0], [1.0, 0.5, 1.5, 1.0])
    x = tokens.gaussian(1, n, d) + 0.3

    def network(seed):
        weights = Sharpened(Weights(Gaussian(0.5), seed=seed), Listed((0.5, 2.0, 1.0, 1.5)))
        return noisy(masks.causal(n), 0.1, norm, weights, skip=skip)

    runs = [
        simulate(network(seed), x, depth, engine="reference", first_sample=seed)["mu"][0]
        for seed in range(40)
    ]
    found = infinite_width(network(0), x, depth).mu[0]
    squares = np.square(runs)
    error = squares.std(axis=0, ddof=1) / len(runs) ** 0.5
    assert np.all(np.abs(squares.mean(axis=0) - found**2) <= 4 * error + 0.04 * found**2)
    assert np.all(error < 0.1 * found**2)


def test_the_expectation_of_softmax_is_that_of_sampled_scores():
    """E[A G A^T] over Gaussian scores, by a hundred thousand draws, at a spread of .3."""
    n, d, sigma = 4, 60, 0.55
    weights = Weights(Gaussian(sigma), Gaussian())
    x = norms.LayerNorm().apply(tokens.gaussian(1, n, d)[0])
    dynamics = AttentionDynamics(masks.causal(n), weights, norms.NoNorm())
    G = x @ x.T / d
    found = infinite_width(dynamics, x, 1)
    root = np.linalg.cholesky(G)
    Z = np.random.default_rng(0).standard_normal((100_000, n, n))
    scores = np.where(dynamics.allowed(), sigma**2 * root @ Z @ root.T, -np.inf)
    A = np.exp(scores - scores.max(axis=-1, keepdims=True))
    A /= A.sum(axis=-1, keepdims=True)
    K = (A @ G @ A.swapaxes(1, 2)).mean(axis=0)
    exact = math.sqrt(d * (np.trace(K) - K.sum() / n))
    uniform = infinite_width(AttentionDynamics(masks.causal(n), PLAIN), x, 1).mu[0, 1]
    assert found.mu[0, 1] == pytest.approx(exact, rel=0.003)
    assert abs(uniform / exact - 1) > 3 * abs(found.mu[0, 1] / exact - 1)
    assert 0.2 < found.spread[0, 0] < 0.4


def test_it_stops_where_scores_are_large_and_where_mu_is_rounding():
    x = tokens.gaussian(1, 6, 32)
    large = AttentionDynamics(masks.causal(6), Weights(Gaussian(3.0)), norms.LayerNorm())
    assert np.isnan(infinite_width(large, x, 3).mu[0, 1:]).all()
    found = infinite_width(AttentionDynamics(masks.complete(6), PLAIN, norms.Unit()), x, 3)
    assert np.isnan(found.mu[0, 1:]).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": Weights(value=Diagonal(2.0))}, "Gaussian or orthogonal values"),
        ({"weights": Weights(shared=True)}, "fresh random weights"),
        ({"weights": Weights(scores=Orthogonal())}, "Gaussian or zero scores"),
        ({"norm": norms.LayerNorm(bias=1.0)}, "without bias"),
        ({"norm": norms.RMSNorm(gain=np.arange(1.0, 5.0))}, "one number as gain"),
        ({"mlp": mlp.GaussianMLP()}, "leave out the MLP"),
    ],
)
def test_what_it_is_not_for_is_refused(options, words):
    dynamics = AttentionDynamics(masks.complete(3), **({"weights": PLAIN} | options))
    with pytest.raises(ValueError, match=words):
        infinite_width(dynamics, tokens.gaussian(1, 3, 4), 2)


def test_it_is_public():
    assert dynsim.gram.infinite_width is infinite_width


def test_theory_beside_a_run_with_dropout(tmp_path, capsys):
    import json

    from dynsim.cli.run import main

    sizes = ["--tokens", "16", "--dim", "64", "--samples", "3", "--depth", "30"]
    command = [*sizes, "--norm", "layernorm", "--scores", "zero", "--dropout", ".2", "--theory"]
    command += ["--out", str(tmp_path)]
    assert main([*command, "--name", "noisy"]) == 0
    said = capsys.readouterr().out
    assert "in the limit of infinite width mu = 13.86 at depth 30" in said  # sqrt(15 * 64 * .2)
    assert "leave the dropout out" in said
    assert "rounding has led" not in said
    summary = json.loads((tmp_path / "noisy.json").read_text())
    limit = summary["theory"]["infinite_width"]
    assert limit["mu"][-1] == pytest.approx(math.sqrt(15 * 64 * 0.2), rel=1e-3)
    assert summary["measures"]["mu"]["mean"][-1] == pytest.approx(limit["mu"][-1], rel=0.1)
    assert summary["theory"]["bounds"] == {}
    assert main([*command, "--compare", "dropout=0,.2", "--no-figure"]) == 0
    assert "mu = 13.86" in capsys.readouterr().out
    assert main([*command, "--shared", "--no-figure"]) == 0
    assert "no infinite-width limit: infinite width is for fresh" in capsys.readouterr().out
