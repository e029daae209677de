"""Every sentence of the papers about real models has a verdict that data can turn."""

import checkpoints
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import dynsim  # noqa: E402
from dynsim import masks, minilm  # noqa: E402
from experiments import (  # noqa: E402
    bert,
    orthogonality_in_real_models,
    real_models,
    spectra_of_real_models,
    temperature_of_attention,
    unselectable_in_real_models,
)

# --- temperature: WU, Fig. 3 and 7 ----------------------------------------------------------------


def temperatures() -> dict[str, np.ndarray]:
    """Data in which every sentence of the paper holds."""
    layers = np.arange(7.0)
    first = np.array([[0.5, 1.0, 2.0], [0.5, 0.8, 1.2], [0.5, 0.6, 0.7], [0.5, 0.55, 0.6]])
    mu = np.where(layers > 0, -first[:, :, None, None] - 0.5 * layers, 0.0)
    mu = np.broadcast_to(mu, (4, 3, 2, 7)).copy()
    return {"bert": mu, "minilm": mu.copy(), "smollm2": mu[:, :, :0].copy()}


def a_warm_sample_falls_less(data):
    data["minilm"][3, 2, 1, 1:] += 0.2


def temperature_does_nothing(data):
    data["bert"][:] = data["bert"][:, :1]


def local_masks_gain_more(data):
    data["bert"][2, 2, :, 1:] -= 3.0


def late_layers_gain_more(data):
    data["minilm"][1, 2, :, 6] -= 2.0


def the_complete_mask_cubes(data):
    for name in ("bert", "minilm"):
        data[name][0, 2, :, 6] -= 50.0


TEMPERATURE = ("slows", "global", "shallow")


def of_temperature(data):
    return dict(zip(TEMPERATURE, temperature_of_attention.claims(data), strict=True))


def test_agreeing_temperatures_reproduce_every_claim():
    for verdict in of_temperature(temperatures()).values():
        assert verdict.outcome == "reproduced"


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (a_warm_sample_falls_less, "slows"), (temperature_does_nothing, "slows"),
        (temperature_does_nothing, "global"), (local_masks_gain_more, "global"),
        (late_layers_gain_more, "shallow"), (temperature_does_nothing, "shallow"),
    ],
)  # fmt: skip
def test_a_claim_on_temperature_fails_on_data_against_it(spoil, name):
    data = temperatures()
    spoil(data)
    assert of_temperature(data)[name].outcome == "NOT reproduced"


def test_what_the_complete_mask_does_is_told_apart():
    data = temperatures()
    the_complete_mask_cubes(data)
    outcome = of_temperature(data)["shallow"].outcome
    assert outcome == "reproduced only with a mask sparser than the complete one"


def test_attention_alone_is_the_changed_model():
    """The log-scale engine on MiniLM's matrices, against the model itself with the rest off."""
    source = dynsim.models.load_model("minilm")
    model, n = source.model.double(), 12
    inputs = dynsim.models.excerpts(source, bert.text(100), n, 1)
    x0 = minilm.embed(bert.text(100), n, 1)
    expected = temperature_of_attention._attention_alone(
        minilm.attention().entries, x0, minilm.N_HEADS
    )
    for m, mask in enumerate(temperature_of_attention.MASKS.values()):
        assert mask in masks.MASKS
        for t, d_QK in ((0, 1 / 64), (2, 64.0)):
            change = dynsim.models.Change(
                mask=mask, norm="off", skip="off", mlp="off", beta=(32 / d_QK) ** 0.5
            )
            with torch.no_grad(), dynsim.trace(model, measured=()) as traced, change.applied(model):
                model(**inputs)
            mu = np.log10(traced.profile.residual("mu"))[:, 0]
            kept = expected[m, t, 0] > -10
            assert np.allclose(mu[kept], expected[m, t, 0][kept], atol=1e-5)


def test_smollm2_is_run_with_attention_alone(tmp_path, monkeypatch):
    """On a tiny Llama in its place: the first two of its blocks, at four masks and three d_QK."""
    from dynsim.models import sources

    checkpoints.save(tmp_path, "llama")
    opened = sources.open_source
    monkeypatch.setattr(sources, "open_source", lambda name: opened(str(tmp_path)))
    settings = {"tokens": 8, "smollm2_excerpts": 2, "smollm2_depth": 2}
    found = temperature_of_attention._smollm2(settings)
    assert found.shape == (4, 3, 2, 3)
    assert np.isfinite(found).all()
    assert np.ptp(found[..., 0], axis=(0, 1)).max() == 0  # all start from the same embeddings
    assert (np.ptp(found[..., 1], axis=1) > 0).all()


# --- spectra: WU, Fig. 4, 8 and 9 -----------------------------------------------------------------

SPECTRA = ("full rank", "smallest", "anisotropy", "dominant", "cosines", "trained cosines")


def spectra() -> dict[str, np.ndarray]:
    """Data in which every sentence of the paper holds: two models, trained and initialised."""
    layers = np.arange(4.0)
    shape = (4, 4, 2)  # model, layer, excerpt
    cosine = np.broadcast_to((0.2 + 0.1 * layers)[:, None], shape)
    sigma = np.broadcast_to(np.array([9.0, 3.0, 2.0, 1.0, 0.5]), (*shape, 5))
    return {
        "model": np.array(["BERT", "BERT", "ALBERT", "ALBERT"]),
        "trained": np.array([True, False, True, False]),
        "tokens": np.array(5), "dim": np.full(4, 8), "rank": np.full(shape, 5.0),
        "sigma_min": np.full(shape, 0.5), "norm_median": np.full(shape, 2.0),
        "mean_abs_cosine": cosine.copy(), "singular_values": sigma.copy(),
        "least_cosine": np.full(4, 0.1), "negative_cosines": np.zeros(4),
        "cosines": np.ones((4, 80)),
    }  # fmt: skip


def of_spectra(data):
    return dict(zip(SPECTRA, spectra_of_real_models.claims(data), strict=True))


def test_agreeing_spectra_reproduce_every_claim():
    for verdict in of_spectra(spectra()).values():
        assert verdict.outcome == "reproduced"


@pytest.mark.parametrize(
    ("key", "where", "value", "name"),
    [
        ("rank", (2, 3, 1), 4.0, "full rank"), ("sigma_min", (0, 2), 0.01, "smallest"),
        ("mean_abs_cosine", (0, 3, 1), 0.1, "anisotropy"),
        ("singular_values", (0, 2, 1, 1), 8.0, "dominant"),
        ("singular_values", (1, 2, 1, 1), 8.0, "dominant"),
        ("least_cosine", 3, -0.01, "cosines"), ("least_cosine", 0, -0.01, "trained cosines"),
    ],
)  # fmt: skip
def test_a_claim_on_spectra_fails_on_data_against_it(key, where, value, name):
    data = spectra()
    data[key][where] = value
    for other, verdict in of_spectra(data).items():
        assert verdict.outcome == ("NOT reproduced" if other == name else "reproduced")


def test_the_rank_of_embeddings_is_not_that_of_blocks():
    data = spectra()
    data["rank"][:, 0] = 3.0
    assert of_spectra(data)["full rank"].reproduced


def test_what_cannot_be_had_is_not_judged():
    data = spectra()
    data["model"][data["trained"]] = "MiniLM"
    verdict = of_spectra(data)["trained cosines"]
    assert verdict.outcome == "not testable here without trained BERT and ALBERT"
    assert not verdict.failed
    assert verdict.measured["MiniLM, trained"] == {"pairs below 0 (%)": 0.0, "least": 0.1}


SIZES = {"dim": 24, "heads": 2, "layers": 2}


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "T5", "ALBERT"])
def test_the_residual_stream_is_what_the_probe_measures(name):
    (real,) = real_models.real_models([name], 8, 2, 0, SIZES)
    assert not real.trained
    states = real_models.residual_stream(real.model, real.inputs)
    assert states.shape == (3, 2, 8, 24)
    profile = dynsim.probe(real.model, points=("embeddings", "layers_output"), measured=(),
                           **real.inputs)  # fmt: skip
    sigma = np.linalg.svd(states, compute_uv=False)
    measured = profile.residual("sigma_max", profile.stacks[0])
    assert np.allclose(sigma[..., 0], measured, rtol=1e-6)


def test_singular_values_and_cosines_are_those_by_definition(rng):
    for shape in ((2, 6, 9), (2, 9, 6)):
        x = rng.standard_normal(shape)
        expected = np.linalg.svd(x, compute_uv=False)
        assert np.allclose(spectra_of_real_models._singular_values(x), expected, rtol=1e-9)
        pairs = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for k, a in enumerate(one)
                  for b in one[k + 1 :]] for one in x]  # fmt: skip
        assert np.allclose(spectra_of_real_models._cosines(x), pairs, rtol=1e-12, atol=1e-12)


def test_trained_weights_are_used_where_they_lie(tmp_path, monkeypatch):
    saved = checkpoints.save(tmp_path).state_dict()
    monkeypatch.setitem(real_models.CHECKPOINTS, "BERT", str(tmp_path))
    models = list(real_models.real_models(["BERT"], 8, 2, 1, SIZES))
    assert [real.trained for real in models] == [True, False]
    for real in models:
        assert real.inputs["input_ids"].shape == (2, 8)
        found = real.model.state_dict()
        assert all(torch.equal(found[key], saved[key]) for key in saved) == real.trained


def test_real_models_run_on_one_thread_and_give_the_others_back():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        models = real_models.real_models(["BERT"], 8, 2, 0, SIZES)
        assert next(models).name == "BERT"
        assert torch.get_num_threads() == 1
        assert not list(models)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_is_left_out_is_said(monkeypatch, capsys):
    monkeypatch.setitem(real_models.CHECKPOINTS, "SmolLM2", "no-such-model")
    assert not list(real_models.real_models(["SmolLM2"], 8, 2, 0, SIZES))
    assert "no trained SmolLM2" in capsys.readouterr().err


def test_the_papers_models_have_the_papers_sizes():
    """bert-base-uncased, gpt2, t5-base and albert-base-v2, by the counts that are published."""
    millions = {"BERT": 109.5, "GPT-2": 124.4, "T5": 222.9, "ALBERT": 11.7}
    default = spectra_of_real_models.SETTINGS["default"]["sizes"]
    for name, count in millions.items():
        config = real_models._CONFIGURATIONS[name](transformers, **default)
        with torch.device("meta"):
            model = transformers.AutoModel.from_config(config)
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(count, abs=0.1)


def test_models_of_other_depths_are_stacked_with_nan():
    whole = real_models.stacked([np.ones((2, 3)), np.ones((4, 1))])
    assert whole.shape == (2, 4, 3)
    assert np.isnan(whole).sum() == 24 - 6 - 4


# --- orthogonality: GUPTA -------------------------------------------------------------------------

ORTHOGONALITY = ("layernorm", "rmsnorm", "chance")


def orthogonality() -> dict[str, np.ndarray]:
    """Data in which every sentence holds: 5 norms, 2 excerpts."""
    rows, flat = np.ones((4, 5, 2)), np.ones((4, 5))
    return {
        "model": np.array(["MiniLM", "MiniLM", "SmolLM2", "SmolLM2"]),
        "trained": np.array([True, False, True, False]), "dim": np.full(4, 400),
        "angle_before": 90.5 * rows, "angle_after": 90 * rows, "norm_before": 5 * rows,
        "norm_after": 2 * rows, "rotation": 20 * rows, "angle_sd": flat, "centring": flat,
        "offset": 0.1 * flat, "baseline": 0.7 * flat, "rank_of_ones": 0.1 * flat,
    }  # fmt: skip


def of_orthogonality(data):
    return dict(zip(ORTHOGONALITY, orthogonality_in_real_models.claims(data), strict=True))


def test_agreeing_angles_reproduce_every_claim():
    for verdict in of_orthogonality(orthogonality()).values():
        assert verdict.outcome == "reproduced"


@pytest.mark.parametrize(
    ("key", "where", "value", "name"),
    [
        ("angle_before", (0, 3), 97.0, "layernorm"), ("angle_before", (2, 1), 83.0, "rmsnorm"),
        ("rank_of_ones", (0, [0, 1]), 0.7, "chance"), ("rank_of_ones", 2, 0.5, "chance"),
    ],
)  # fmt: skip
def test_a_claim_on_angles_fails_on_data_against_it(key, where, value, name):
    data = orthogonality()
    data[key][where] = value
    for other, verdict in of_orthogonality(data).items():
        assert verdict.outcome == ("NOT reproduced" if other == name else "reproduced")


def test_without_smollm2_rmsnorm_is_not_judged():
    data = {key: array[:2] for key, array in orthogonality().items()}
    assert of_orthogonality(data)["rmsnorm"].outcome == "not testable here without trained SmolLM2"


def test_the_rank_of_ones_is_that_among_random_directions(rng):
    x = rng.standard_normal((40, 24)) + 0.3
    *_, rank = orthogonality_in_real_models._among_directions(x)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    directions = rng.standard_normal((40_000, 24))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    ones = np.full(24, 24**-0.5)
    nearer = np.abs((directions @ unit.T).mean(axis=1)) < abs((unit @ ones).mean())
    assert rank == pytest.approx(nearer.mean(), abs=0.01)


# --- unselectable keys: BRODY ---------------------------------------------------------------------

UNSELECTABLE = ("after", "before", "heads")


def unselectable() -> dict[str, np.ndarray]:
    """Data in which every sentence holds: 2 models, 2 layers, 3 heads, widths 4 and 8."""
    return {
        "model": np.array(["MiniLM", "MiniLM"]), "trained": np.array([True, False]),
        "tokens": np.array([50, 50]), "dim": np.array([24, 24]), "head_width": np.array([8, 8]),
        "heads": np.zeros((2, 2, 3)), "hidden": np.tile([0.3, 0.0], (2, 2, 1)),
        "mapped": np.full((2, 2, 2, 2), 0.2), "widths": np.array([4, 8]),
        "expected": np.full((2, 2), 0.2), "expected_heads": np.full(2, 1e-9),
    }  # fmt: skip


def of_unselectable(data):
    return dict(zip(UNSELECTABLE, unselectable_in_real_models.claims(data), strict=True))


def test_agreeing_counts_reproduce_every_claim():
    for verdict in of_unselectable(unselectable()).values():
        assert verdict.outcome == "reproduced"


@pytest.mark.parametrize(
    ("key", "where", "name"),
    [("hidden", (0, 1, 1), "after"), ("heads", (0, 1, 2), "heads"), ("heads", (1, 0, 0), "heads")],
)
def test_a_claim_on_keys_fails_on_data_against_it(key, where, name):
    data = unselectable()
    data[key][where] = 0.02
    for other, verdict in of_unselectable(data).items():
        assert verdict.outcome == ("NOT reproduced" if other == name else "reproduced")


def test_what_needs_few_dimensions_is_called_so():
    data = unselectable()
    data["hidden"][0, :, 0] = 0.0
    outcome = of_unselectable(data)["before"].outcome
    assert outcome.startswith("reproduced only with keys of as few dimensions")
    data["mapped"][0, 1, 0, 1] = 0.0
    assert of_unselectable(data)["before"].outcome == "NOT reproduced"


def test_equal_tokens_are_counted_once():
    square = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.4, 0.5]])
    assert unselectable_in_real_models._share(square[None]) == pytest.approx(1 / 5)
    doubled = np.concatenate([square, square])
    assert unselectable_in_real_models._share(doubled[None]) == pytest.approx(1 / 5)
