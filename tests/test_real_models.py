"""Every sentence of the papers about real models has a verdict that data can turn."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import dynsim  # noqa: E402
from dynsim import masks, minilm  # noqa: E402
from experiments import bert, temperature_of_attention  # noqa: E402

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
    inputs = dynsim.models.excerpts(source, bert.text()[:2000], n, 1)
    x0 = minilm.embed(bert.text()[:2000], n, 1)
    expected = temperature_of_attention._attention_alone(
        minilm.attention().entries, x0, minilm.N_HEADS
    )
    for m, mask in enumerate(temperature_of_attention.MASKS.values()):
        assert mask in masks.MASKS
        for t, d_QK in enumerate(temperature_of_attention.D_QK.values()):
            change = dynsim.models.Change(
                mask=mask, norm="off", skip="off", mlp="off", beta=(32 / d_QK) ** 0.5
            )
            with torch.no_grad(), dynsim.trace(model, measured=()) as traced, change.applied(model):
                model(**inputs)
            mu = np.log10(traced.profile.residual("mu"))[:, 0]
            kept = expected[m, t, 0] > -10
            assert np.allclose(mu[kept], expected[m, t, 0][kept], atol=1e-5)
