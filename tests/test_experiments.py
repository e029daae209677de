import json
from inspect import signature

import numpy as np
import pytest

from experiments import experiments
from experiments.__main__ import main

#: They train: seconds are too short to judge their claims, which `tests/test_training.py` tries.
TRAINED = {
    "layernorm_and_rmsnorm_twins",
    "majority_keys_and_queries",
    "majority_task",
    "unselectable_in_a_classifier",
    "unselectable_in_language_models",
}


#: Several claims, some of which the data contradict: `tests/test_masks_and_layernorm.py` and
#: `tests/test_real_models.py`.
SEVERAL = {
    "masks_and_layernorm",
    "orthogonality_in_real_models",
    "spectra_of_real_models",
    "temperature_of_attention",
    "unselectable_in_real_models",
}

#: Whose arrays a second run gives again in two parts.
INTERRUPTED = "majority_keys_and_queries"


@pytest.mark.parametrize("name", experiments())
def test_every_experiment_reproduces_at_smoke_settings(name, smoke):
    run = smoke(name)
    assert "reproduced" in run.output
    sidecar = json.loads((run.folder / f"{name}.json").read_text())
    verdicts = sidecar["verdicts"] if "verdicts" in sidecar else [sidecar["verdict"]]
    spared = ("reproduced", "only_with", "lacking")
    assert run.status == (0 if all(any(v[name] for name in spared) for v in verdicts) else 1)
    assert run.status == 0 or name in TRAINED | SEVERAL
    assert {"settings", "seed", "versions", "commit", "runtime_s", "paper"} <= set(sidecar)
    assert (run.folder / f"{name}.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", sorted(set(experiments()) - {INTERRUPTED}))
def test_the_same_seed_gives_the_same_arrays(name, smoke, tmp_path):
    experiment = experiments()[name]
    resumable = "checkpoints" in signature(experiment.compute).parameters
    kept = {"checkpoints": tmp_path} if resumable else {}
    again = experiment.compute(experiment.SETTINGS["smoke"], 0, lambda share: None, **kept)
    assert_same(smoke(name).data, again)


def assert_same(first, second):
    assert set(first) == set(second)
    for key, array in first.items():
        nan = array.dtype.kind == "f"  # where a prediction ends
        assert np.array_equal(array, second[key], equal_nan=nan), key


@pytest.mark.parametrize("name", experiments())
def test_an_experiment_has_its_parts(name):
    experiment = experiments()[name]
    assert list(experiment.SETTINGS) in (["smoke", "default", "paper"], ["smoke", "default"])
    assert "arXiv" in experiment.PAPER


def test_an_interrupted_experiment_goes_on_from_its_checkpoints(
    tmp_path, monkeypatch, capsys, smoke
):
    from experiments.training.checkpoints import Checkpoint

    name, whole = INTERRUPTED, smoke(INTERRUPTED)
    command = ["run", name, "--settings", "smoke", "--out", str(tmp_path)]
    save, saved = Checkpoint.save, []

    def save_seven(self, tensors):
        if len(saved) == 7:
            raise KeyboardInterrupt
        saved.append(self.path)
        save(self, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_seven)
        assert main(command) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not (tmp_path / f"{name}.json").exists()
    assert main(command) == whole.status
    with np.load(tmp_path / f"{name}.npz", allow_pickle=False) as archive:
        assert_same(whole.data, dict(archive))
    sidecars = [
        json.loads((folder / f"{name}.json").read_text()) for folder in (whole.folder, tmp_path)
    ]
    assert [sidecar["resumed"] for sidecar in sidecars] == [False, True]


def test_settings_as_published_are_not_made_up(tmp_path, capsys):
    command = ["run", "dong_cubic_law", "--settings", "paper", "--out", str(tmp_path)]
    assert main(command) == 2
    assert "dong_cubic_law has no settings as published" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_list_and_unknown_names(capsys):
    assert main(["list"]) == 0
    assert "masks_and_layernorm" in capsys.readouterr().out
    assert main(["run", "nothing"]) == 2
    assert "known are" in capsys.readouterr().err
