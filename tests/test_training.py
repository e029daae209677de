"""The training library against torch's own layers, transformers' GPT-2, and plain enumeration."""

import doctest
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dynsim import masks, minilm, norms
from dynsim.geometry import angle_to_ones

torch = pytest.importorskip("torch")

from experiments import (  # noqa: E402
    layernorm_and_rmsnorm_twins,
    majority_keys_and_queries,
    majority_task,
    unselectable_in_a_classifier,
    unselectable_in_language_models,
)
from experiments.training import classifier, gpt, hidden, majority, text  # noqa: E402
from experiments.training.checkpoints import Checkpoint  # noqa: E402
from experiments.training.ensembles import Ensemble, Training, train  # noqa: E402
from experiments.training.norms import FactoredNorm, layer_norm, rms_norm  # noqa: E402

# --- norms ----------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10**6), d=st.integers(2, 40), power=st.integers(-6, 6))
def test_the_factored_norm_is_layernorm_and_rmsnorm(seed, d, power):
    a = np.random.default_rng(seed).standard_normal((5, d)) * 10.0**power
    ours = {
        norm: norm(d).double()(torch.from_numpy(a)).detach().numpy()
        for norm in (layer_norm, rms_norm)
    }
    assert np.allclose(ours[layer_norm], norms.LayerNorm().apply(a), rtol=1e-9, atol=1e-12)
    assert np.allclose(ours[rms_norm], norms.RMSNorm().apply(a), rtol=1e-9, atol=1e-12)
    theirs = torch.nn.functional.layer_norm(torch.from_numpy(a), (d,)).numpy()
    assert np.allclose(ours[layer_norm], theirs, rtol=1e-9, atol=1e-12)


def test_projection_and_scaling_come_apart(rng):
    a = torch.from_numpy(rng.standard_normal((4, 7)))
    projected = FactoredNorm(7, project=True, length=None, affine=False)(a)
    assert torch.allclose(projected, a - a.mean(-1, keepdim=True))
    short = FactoredNorm(7, project=False, length=7**-0.5, affine=False, eps=0.0)(a)
    assert torch.allclose(short, torch.nn.functional.normalize(a, dim=-1) / 7**0.5)
    norm = FactoredNorm(7, project=False, length=None).double()
    with torch.no_grad():
        norm.gain.copy_(a[0])
        norm.bias.copy_(a[1])
    assert torch.allclose(norm(a), a[0] * a + a[1])


# --- the majority task ----------------------------------------------------------------------------


def partitions(n, largest):
    """Every way to write n as a sum of numbers up to `largest`, falling."""
    if n == 0:
        return [()]
    return [
        (j, *rest) for j in range(1, min(n, largest) + 1) for rest in partitions(n - j, j)
    ]  # fmt: skip


def test_partitions_are_drawn_uniformly(rng):
    length, classes, lead = 14, 5, 3
    wanted = [
        p for p in partitions(length, length)
        if 2 <= len(p) <= classes and p[0] - p[1] >= lead
    ]  # fmt: skip
    counts = majority.sequences(5000, length, classes, lead, rng)
    drawn = [tuple(int(c) for c in -np.sort(-row) if c) for row in counts]
    assert set(drawn) == set(wanted)
    observed = [drawn.count(p) for p in wanted]
    assert stats.chisquare(observed).pvalue > 1e-3
    leaders = np.bincount(counts.argmax(axis=1), minlength=classes)
    assert stats.chisquare(leaders).pvalue > 1e-3


def test_the_papers_sequences(rng):
    counts = majority.sequences(200, 50, 20, 6, rng)
    assert counts.shape == (200, 20)
    assert (counts.sum(axis=1) == 50).all()
    ordered = np.sort(counts, axis=1)
    assert (ordered[:, -1] - ordered[:, -2] >= 6).all()
    assert (ordered[:, -2] > 0).all()


def test_an_epoch_has_every_sample_once():
    batches = majority.epochs(samples=10, batch=4, members=3, seed=0)
    first = np.concatenate([batches(step) for step in range(3)], axis=1)
    assert [batches(step).shape for step in range(3)] == [(3, 4), (3, 4), (3, 2)]
    assert (np.sort(first, axis=1) == np.arange(10)).all()
    later = batches(4)
    assert not np.array_equal(batches(1), later)
    assert np.array_equal(majority.epochs(10, 4, 2, 0)(4), later[:2])  # of the step alone
    assert np.array_equal(np.sort(majority.epochs(10, 99, 1, 0)(7)[0]), np.arange(10))


@pytest.mark.parametrize("project", [True, False])
def test_counts_stand_for_whole_sequences(project, rng):
    """Against torch's encoder layer on every token of every sequence."""
    classes, d, length = 6, 8, 15
    norm = FactoredNorm(d, project, d**0.5, affine=False, eps=0.0)
    model = majority.MajorityModel(classes, d, norm).double()
    layer = torch.nn.TransformerEncoderLayer(
        d, 1, d, dropout=0.0, layer_norm_eps=0.0, batch_first=True, norm_first=True
    ).double()
    layer.norm1 = norm
    with torch.no_grad():
        attention = layer.self_attn
        attention.in_proj_weight.copy_(torch.cat([model.W_Q.T, model.W_K.T, model.W_V.T]))
        attention.in_proj_bias.zero_()
        attention.out_proj.load_state_dict(model.output.state_dict())
        layer.norm2.load_state_dict(model.second_norm.state_dict())
        layer.linear1.load_state_dict(model.feed_forward[0].state_dict())
        layer.linear2.load_state_dict(model.feed_forward[2].state_dict())
    counts = majority.sequences(3, length, classes, 2, rng)
    classes_of = [np.repeat(np.arange(classes), row.astype(int)) for row in counts]
    ids = torch.tensor(np.array([rng.permutation(row) for row in classes_of]))
    expected = layer(model.embedding[ids]) @ model.embedding.T  # (3, length, classes)
    counts = torch.from_numpy(counts)
    logits = model(counts)
    for b in range(3):
        assert torch.allclose(logits[b, ids[b]], expected[b], rtol=1e-9, atol=1e-9)
    answer = counts.argmax(dim=1)[:, None].expand_as(ids)
    loss = torch.nn.functional.cross_entropy(expected.flatten(0, 1), answer.flatten())
    assert torch.allclose(majority.losses(logits, counts), loss, rtol=1e-9)
    right = (expected.argmax(dim=-1) == answer).double().mean()
    assert torch.allclose(majority.accuracies(logits, counts), right)


def test_a_score_is_a_query_times_a_key():
    norm = FactoredNorm(4, True, 2.0, affine=False, eps=0.0)
    model = majority.MajorityModel(5, 4, norm).requires_grad_(False)
    query, key = model.keys() @ model.W_Q, model.keys() @ model.W_K
    assert torch.allclose(model.queries() @ model.keys().T, query @ key.T / 2.0, atol=1e-6)
    assert torch.allclose(model.keys().sum(dim=1), torch.zeros(5), atol=1e-5)
    angle = majority.query_angles(model)
    cosine = model.queries().sum(dim=1).abs() / (2 * model.queries().norm(dim=1))
    assert np.allclose(np.cos(np.radians(angle)), cosine.numpy(), atol=1e-5)


# --- ensembles and checkpoints --------------------------------------------------------------------


def small_ensemble(members=3, seed=0):
    return Ensemble(lambda: torch.nn.Linear(2, 1), members, seed)


def line(ensemble, tmp_path, steps=12, stop_at=None, rate=0.1, **facts):
    """Fit y = x_1 - 2 x_2; `stop_at` interrupts before that step."""

    def losses(step):
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.tensor(np.random.default_rng([step]).standard_normal((ensemble.size, 8, 2)))
        x = x.float()
        wanted = x @ torch.tensor([[1.0], [-2.0]])
        return (ensemble.together(x) - wanted).square().mean(dim=(1, 2))

    def observe():
        return {"weight": ensemble.parameters["weight"].detach().numpy().copy()}

    checkpoint = Checkpoint(tmp_path / "line.safetensors", steps=steps, **facts)
    return train(
        ensemble, losses, observe, Training(steps, rate, 5), checkpoint, lambda share: None
    )


def test_members_do_not_depend_on_each_other(tmp_path):
    """Nor on how many there are: member 1 of three is member 1 of two."""
    three, two = small_ensemble(3), small_ensemble(2)
    seen = line(three, tmp_path / "a"), line(two, tmp_path / "b")
    assert np.allclose(seen[0]["weight"][:, 0], seen[1]["weight"][:, 0], rtol=1e-6)
    assert not np.allclose(seen[0]["weight"][0, 0], seen[0]["weight"][0, 1])
    x = torch.randn(3, 4, 2)
    for together, alone, model, inputs in zip(
        three.together(x), three.one_by_one(x), three.members(), x, strict=True
    ):
        assert torch.allclose(together, alone, atol=1e-6)
        assert torch.equal(alone, model(inputs))


def test_an_interrupted_training_ends_with_the_same_bits(tmp_path):
    whole = line(small_ensemble(), tmp_path / "whole")
    assert whole["step"].tolist() == [0, 5, 10, 12]
    with pytest.raises(KeyboardInterrupt):
        line(small_ensemble(), tmp_path / "parts", stop_at=8)
    begun = small_ensemble(seed=1)  # what it starts from does not matter: the checkpoint does
    parts = line(begun, tmp_path / "parts")
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)
    again = line(small_ensemble(), tmp_path / "parts", stop_at=0)  # finished: nothing is trained
    assert np.array_equal(again["weight"], whole["weight"])


def test_a_rate_that_falls_reaches_zero():
    constant, falling = Training(10, 0.5, 1), Training(10, 0.5, 1, decay=20)
    assert [constant.rate_at(step) for step in (0, 9)] == [0.5, 0.5]
    assert [falling.rate_at(step) for step in (0, 10, 20)] == [0.5, 0.25, 0.0]


def test_training_follows_the_rate(tmp_path):
    """Against torch's own schedule."""
    one, other = small_ensemble(1), small_ensemble(1)

    def losses_of(ensemble):
        return lambda step: ensemble.parameters["weight"].square().sum(dim=(1, 2))

    train(one, losses_of(one), dict, Training(6, 0.1, 6, 12), Checkpoint(tmp_path / "x"), id)
    optimizer = torch.optim.Adam(other.parameters.values(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 12)
    for step in range(6):
        optimizer.zero_grad()
        losses_of(other)(step).sum().backward()
        optimizer.step()
        schedule.step()
    assert torch.allclose(one.parameters["weight"], other.parameters["weight"], rtol=1e-6)


def test_a_checkpoint_of_other_settings_is_not_used(tmp_path):
    line(small_ensemble(seed=1), tmp_path, seed=1)
    fresh = line(small_ensemble(), tmp_path / "elsewhere", seed=0)
    assert np.array_equal(line(small_ensemble(), tmp_path, seed=0)["weight"], fresh["weight"])


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    with pytest.raises(FloatingPointError, match="member 0 is inf at step 1"):
        line(small_ensemble(), tmp_path, rate=1e30)


# --- language models ------------------------------------------------------------------------------


def test_the_model_is_gpt2(rng):
    transformers = pytest.importorskip("transformers")
    d, layers, heads, vocabulary, positions = 8, 2, 4, 11, 20
    model = gpt.GPT(vocabulary, positions, d, layers, heads, layer_norm, layer_norm).double()
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=vocabulary, n_positions=positions, n_embd=d, n_layer=layers, n_head=heads,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )
    ).double()  # fmt: skip

    def linear(conv, module):  # transformers keeps x W + b as W
        conv.weight.copy_(module.weight.T)
        conv.bias.zero_() if module.bias is None else conv.bias.copy_(module.bias)

    def norm(theirs, module):
        theirs.weight.copy_(module.gain)
        theirs.bias.copy_(module.bias)

    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(rng.standard_normal(parameter.shape)))
        theirs.transformer.wte.weight.copy_(model.characters.weight)
        theirs.transformer.wpe.weight.copy_(model.positions.weight)
        norm(theirs.transformer.ln_f, model.last_norm)
        for block, ours in zip(theirs.transformer.h, model.blocks, strict=True):
            norm(block.ln_1, ours.attention_norm)
            norm(block.ln_2, ours.mlp_norm)
            linear(block.attn.c_attn, ours.queries_keys_values)
            linear(block.attn.c_proj, ours.output)
            linear(block.mlp.c_fc, ours.mlp[0])
            linear(block.mlp.c_proj, ours.mlp[2])
    ids = torch.from_numpy(rng.integers(vocabulary, size=(3, 12)))
    places = torch.arange(5, 17)[None]
    expected = theirs.eval()(input_ids=ids, position_ids=places, labels=ids)
    logits = model(ids, first=5)
    assert torch.allclose(logits, expected.logits, rtol=1e-9, atol=1e-9)
    assert torch.allclose(gpt.losses(logits, ids), expected.loss.double(), rtol=1e-5)


def test_the_text_is_real_and_held_out():
    training, held_out = text.standard_library()
    assert min(len(training), len(held_out)) > 100_000
    assert max(training.max(), held_out.max()) < len(text.VOCABULARY)
    assert "def " in text.decode(held_out[:20_000])
    assert "PYTHON SOFTWARE FOUNDATION LICENSE" in text.decode(np.concatenate([training, held_out]))
    shares = [np.mean(part == len(text.VOCABULARY) - 1) for part in (training, held_out)]
    assert max(shares) < 0.01  # almost nothing is another sign
    assert text.decode(text.encode("é\tx\x7f~\n")) == "��x�~\n"


def test_the_examples_in_docstrings():
    assert doctest.testmod(text) == (0, 2)


def test_excerpts_come_from_everywhere(rng):
    source = np.arange(20, dtype=np.uint8)
    found = text.excerpts(source, 500, 4, rng)
    assert (np.diff(found, axis=1) == 1).all()
    assert set(found[:, 0]) == set(range(17))


def test_learning_lowers_the_loss(tmp_path):
    settings = layernorm_and_rmsnorm_twins.SETTINGS["smoke"]
    settings = settings | {"dim": 16, "members": 1, "steps": 30, "every": 30}
    checkpoint = Checkpoint(tmp_path / "x.safetensors")
    _, seen = gpt.learn(
        layer_norm, layer_norm, settings | {"rate": 0.01}, 0, checkpoint, lambda share: None
    )
    assert np.isclose(seen["loss"][0, 0], np.log(len(text.VOCABULARY)), atol=0.2)
    assert seen["loss"][1, 0] < seen["loss"][0, 0] - 0.5


# --- hidden vectors -------------------------------------------------------------------------------


def test_passages_are_what_the_norms_see(rng):
    model = gpt.GPT(11, 20, 8, 2, 4, layer_norm, rms_norm).requires_grad_(False)
    ids = rng.integers(11, size=(2, 9))
    seen = hidden.passages(model, ids)
    assert list(seen) == [
        "blocks.0.attention_norm", "blocks.0.mlp_norm",
        "blocks.1.attention_norm", "blocks.1.mlp_norm", "last_norm",
    ]  # fmt: skip
    first = seen["blocks.0.attention_norm"]
    embedded = model.characters.weight[ids] + model.positions.weight[:9]
    assert np.allclose(first.before, embedded.numpy(), atol=1e-7)
    assert np.allclose(first.after, norms.LayerNorm().apply(first.before))
    assert np.allclose(seen["last_norm"].after, norms.RMSNorm().apply(seen["last_norm"].before))
    assert model.characters.weight.dtype == torch.float32  # the model itself stays as it was


@given(seed=st.integers(0, 10**6), d=st.integers(2, 30))
def test_layernorm_turns_by_what_is_missing_to_a_right_angle(seed, d):
    """Standardising a turns it by |90 - angle to 1| (GUPTA: it removes the part along 1)."""
    a = np.random.default_rng(seed).standard_normal((6, d))
    turned = hidden.angles(a, norms.LayerNorm(eps=0.0).apply(a))
    assert np.allclose(turned, np.abs(90.0 - angle_to_ones(a)), atol=1e-5)
    passage = hidden.Passage(a, norms.LayerNorm(eps=0.0).apply(a))
    found = hidden.geometry({"one": passage, "two": passage})
    assert np.allclose(found["rotation"], turned.mean())
    assert np.allclose(found["length_after"], d**0.5)
    assert np.allclose(found["length_before"], np.linalg.norm(a, axis=1).mean())
    assert np.allclose(found["angle_sd"], angle_to_ones(a).std())


def test_minilms_norms_end_where_its_layers_end():
    excerpt = text.decode(text.standard_library()[1][:2000])
    seen = hidden.of_minilm(excerpt, n_tokens=16, samples=2)
    assert len(seen) == 1 + 2 * minilm.N_LAYERS
    x = minilm.embed(excerpt, 16, 2)
    for k in range(minilm.N_LAYERS):
        layer = minilm.layer(k, masks.complete(16))
        x = np.stack([layer.step(sample) for sample in x])
        passage = seen[f"layer {k} MLP"]
        assert np.allclose(passage.after, x, rtol=1e-9, atol=1e-10)
        assert np.allclose(layer.mlp_norm.apply(passage.before), passage.after)


# --- the experiments' claims ----------------------------------------------------------------------


def majority_data(slower=3.0, turn=-40.0, published=10.0, seeds=5):
    """Exponential losses; LayerNorm `slower` times faster; angles change by these degrees."""
    rng = np.random.default_rng(0)
    step = np.arange(0, 17_001, 250)
    pace = np.exp(0.02 * rng.standard_normal(seeds))
    curves = [np.exp(-step[:, None] * pace / 4000 * factor) for factor in (slower, 1, 1)]
    angle = 70 + 0.5 * rng.standard_normal((3, len(step), seeds))
    angle[0] += turn * np.linspace(0, 1, len(step))[:, None]
    angle[2] += published * np.linspace(0, 1, len(step))[:, None]
    loss = np.stack(curves)
    return {"step": step, "loss": loss, "accuracy": 1 - loss / 4, "angle": angle}


def test_the_speed_up_is_the_ratio_of_steps():
    found = majority_task.speed_up(majority_data(), majority_task.RMS)
    assert np.isclose(found["factor"], 3.0, rtol=0.02)
    assert found["interval"][0] <= found["factor"] <= found["interval"][1]
    even = majority_task.speed_up(majority_data(slower=1.0), majority_task.RMS)
    assert even["interval"][0] <= 1.0 <= even["interval"][1]


def test_the_majority_claim_needs_all_its_parts():
    assert majority_task.claim(majority_data()).reproduced
    assert not majority_task.claim(majority_data(turn=0.0)).reproduced
    assert not majority_task.claim(majority_data(published=-5.0)).reproduced
    assert not majority_task.claim(majority_data(slower=0.7)).reproduced


def test_an_interval_that_reaches_zero_shows_no_turn():
    """The published variant's angle neither rises nor falls for certain."""
    data = majority_data(published=0.0)
    low, high = majority_task.turned(data, majority_task.PUBLISHED)
    assert low < 0 < high
    assert not majority_task.claim(data).reproduced


def test_absence_of_evidence_is_called_that():
    data = majority_data()
    assert "the loss falls sooner with the projection" in majority_task.claim(data).statement
    data["loss"][1] = data["loss"][0]
    assert "does not decide" in majority_task.claim(data).statement


def test_the_picture_in_three_dimensions_can_disagree(rng):
    keys = rng.standard_normal((3, 4, 5, 3))
    keys[0] -= keys[0].mean(axis=-1, keepdims=True)
    queries = rng.standard_normal((3, 4, 5, 3))
    data = {"keys": keys, "queries": queries.copy(), "accuracy": np.ones((3, 4))}
    data["queries"][0] = 1.0 + 0.01 * queries[0]
    assert majority_keys_and_queries.claim(data).reproduced
    assert not majority_keys_and_queries.claim(data | {"queries": queries[[1, 1, 1]]}).reproduced
    assert not majority_keys_and_queries.claim(data | {"keys": keys[[1, 1, 1]]}).reproduced


def unselectable_data(worth=(0.05, 0.0)):
    """Shares of 30%, none after scaling; by rate, the loss without scaling is higher by `worth`."""
    rng = np.random.default_rng(0)
    share = np.full((2, 4, 5, 1, 4, 2), 0.3)
    share[:, [0, 2], ..., 1] = 0.0
    loss = 2.0 + 0.1 * rng.standard_normal(5) * np.ones((2, 4, 8, 1))
    loss[:, [1, 3]] += np.array(worth)[:, None, None, None] + 0.01 * rng.standard_normal(
        (2, 2, 1, 5)
    )
    data = {"rates": np.array([1e-3, 5e-3]), "step": np.arange(8), "loss": loss}
    return data | {
        "unselectable": share, "unselectable_short": share.copy(), "minilm": np.zeros((2, 6, 3)),
    }  # fmt: skip


def test_the_table_of_unselectable_keys_can_disagree():
    data, claims = unselectable_data(), unselectable_in_language_models.claims
    assert all(verdict.reproduced for verdict in claims(data))
    for k, key in enumerate(("unselectable", "unselectable_short")):
        for variants in ([1, 1, 2, 3], [0, 0, 2, 3]):
            held = [v.reproduced for v in claims(data | {key: data[key][:, variants]})]
            assert held == [one != k for one in range(3)]
    for worth in ((-0.05, -0.1), (0.0, 0.0)):
        assert not claims(unselectable_data(worth=worth))[2].reproduced


def test_what_scaling_is_worth_is_told_by_rate():
    def loss(**given):
        return unselectable_in_language_models.claims(unselectable_data(**given))[2]

    assert "none of it is shown at 0.005" in loss().statement
    assert "some is left at 0.005" in loss(worth=(0.1, 0.05)).statement
    assert not loss(worth=(0.05, 0.05)).reproduced  # it has to depend on it


def test_both_pairs_of_a_seed_count_once():
    data = unselectable_data()
    costs = unselectable_in_language_models.cost_of_no_scaling(data)
    assert costs.shape == (2, 8, 5)
    loss = data["loss"]
    assert np.allclose(costs[0], ((loss[0, 1] - loss[0, 0]) + (loss[0, 3] - loss[0, 2])) / 2)


def test_the_classifiers_claim_can_fail(rng):
    share = rng.uniform(0.1, 0.3, (5, 3, 4))
    data = {"unselectable": share, "at_first": share, "accuracy": rng.uniform(0.8, 0.9, (3, 5))}
    claim = unselectable_in_a_classifier.claim
    assert claim(data).reproduced
    none = share.copy()
    none[:, :, 2] = 0.0
    assert not claim(data | {"unselectable": none}).reproduced
    assert not claim(data | {"accuracy": rng.uniform(0.45, 0.55, (3, 5))}).reproduced


def test_the_classifier_has_no_norm_and_sees_both_ways(rng):
    model = classifier.Classifier(12, 8, 2, 4).requires_grad_(False)
    ids = torch.from_numpy(rng.integers(len(text.VOCABULARY), size=(3, 12)))
    for passage in hidden.passages(model, ids.numpy()).values():
        assert np.array_equal(passage.before, passage.after)
    states = model.encoder.states(ids)
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % len(text.VOCABULARY)
    assert not torch.equal(model.encoder.states(changed)[:, 0], states[:, 0])
    assert torch.allclose(model(ids), states.mean(dim=1) @ model.head.weight[0] + model.head.bias)


def test_the_two_kinds_of_text(rng):
    ids, labels = classifier.drawn(1, 5, 40, rng)
    assert ids.shape == (5, 40)
    assert labels.tolist() == [0, 0, 1, 1, 1]
    reference = text.decode(np.concatenate(text.language_reference()))
    assert "identifier" in reference
    assert text.decode(ids[4].numpy()) in reference


def twins_data(layer_norm=0.2, rms_norm=3.0, models=(3, 5), norms=5):
    """Offsets after training are these times those at step 0, those of random directions."""
    rng = np.random.default_rng(0)
    shape = (models[0], 2, 3, models[1], norms)
    data = {name: np.full(shape, 90.0) for name in layernorm_and_rmsnorm_twins.MEASURES}
    data["baseline"] = np.ones(shape)
    data["offset"] = (
        np.abs(rng.standard_normal(shape[:1] + shape[3:]))[:, None, None] * data["baseline"]
    )
    for k, factor in enumerate((layer_norm, rms_norm)):
        spread = np.exp(0.1 * rng.standard_normal((models[0], *models[1:], norms)))
        data["offset"][:, k, -1] *= factor * spread
    real = {f"minilm_{name}": np.ones(13) for name in layernorm_and_rmsnorm_twins.MEASURES}
    return data | real | {"dims": np.array([64, 128, 256]), "loss": np.ones(shape[:-1])}


def test_the_twins_can_disagree():
    claim = layernorm_and_rmsnorm_twins.claim
    found = claim(twins_data())
    assert found.reproduced
    assert "are further away than at step 0" in found.statement
    assert not claim(twins_data(layer_norm=1.0)).reproduced
    assert not claim(twins_data(rms_norm=0.2)).reproduced  # as near as its twin
    above = twins_data()
    above["baseline"] = above["baseline"] / 10
    assert not claim(above).reproduced  # random directions are nearer


def test_what_is_not_shown_of_rmsnorm_is_not_claimed():
    data = twins_data()
    data["offset"][:, 1, -1, ::2] /= 9  # a factor 3 up in some models, 3 down in others
    statement = layernorm_and_rmsnorm_twins.claim(data).statement
    assert "are not shown nearer than at step 0" in statement


def test_untrained_twins_do_not_meet_the_claim():
    """However near to 90 degrees a random direction is."""
    data = twins_data(1.0, 1.0)
    assert np.abs(data["angle"] - 90.0).max() == 0.0
    assert not layernorm_and_rmsnorm_twins.claim(data).reproduced


def test_finding_the_experiments_does_not_load_torch():
    code = (
        "import sys; from experiments import experiments; experiments(); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
