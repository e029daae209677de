import json

import numpy as np
import pytest

from experiments import experiments
from experiments.__main__ import main


def arrays_of(path):
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


#: They train: seconds are too short to judge their claims, which `tests/test_training.py` tries.
TRAINED = {
    "layernorm_and_rmsnorm_twins",
    "majority_keys_and_queries",
    "majority_task",
    "unselectable_in_a_classifier",
    "unselectable_in_language_models",
}


#: Several claims, some of which the data contradict: `tests/test_masks_and_layernorm.py`.
SEVERAL = {"masks_and_layernorm"}


@pytest.mark.parametrize("name", experiments())
def test_every_experiment_reproduces_at_smoke_settings(name, tmp_path, capsys):
    command = ["run", name, "--settings", "smoke", "--out", str(tmp_path)]
    status = main(command)
    assert "reproduced" in capsys.readouterr().out
    sidecar = json.loads((tmp_path / f"{name}.json").read_text())
    verdicts = sidecar["verdicts"] if "verdicts" in sidecar else [sidecar["verdict"]]
    assert status == (0 if all(v["reproduced"] or v["only_with"] for v in verdicts) else 1)
    assert status == 0 or name in TRAINED | SEVERAL
    assert {"settings", "seed", "versions", "commit", "runtime_s", "paper"} <= set(sidecar)
    first = arrays_of(tmp_path / f"{name}.npz")
    assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    (tmp_path / "again").mkdir()
    assert main([*command[:-1], str(tmp_path / "again")]) == status
    second = arrays_of(tmp_path / "again" / f"{name}.npz")
    for key in first:
        nan = first[key].dtype.kind == "f"  # where a prediction ends
        assert np.array_equal(first[key], second[key], equal_nan=nan), key


@pytest.mark.parametrize("name", experiments())
def test_an_experiment_has_its_parts(name):
    experiment = experiments()[name]
    assert list(experiment.SETTINGS) in (["smoke", "default", "paper"], ["smoke", "default"])
    assert "arXiv" in experiment.PAPER


def test_an_interrupted_experiment_goes_on_from_its_checkpoints(tmp_path, monkeypatch, capsys):
    from experiments.training.checkpoints import Checkpoint

    name = "majority_keys_and_queries"
    command = ["run", name, "--settings", "smoke", "--out"]
    status = main([*command, str(tmp_path / "whole")])
    save, saved = Checkpoint.save, []

    def save_seven(self, tensors):
        if len(saved) == 7:
            raise KeyboardInterrupt
        saved.append(self.path)
        save(self, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_seven)
        assert main([*command, str(tmp_path / "parts")]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert not (tmp_path / "parts" / f"{name}.json").exists()
    assert main([*command, str(tmp_path / "parts")]) == status
    whole, parts = (arrays_of(tmp_path / run / f"{name}.npz") for run in ("whole", "parts"))
    assert all(np.array_equal(whole[key], parts[key]) for key in whole)
    sidecars = [
        json.loads((tmp_path / run / f"{name}.json").read_text()) for run in ("whole", "parts")
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
