"""The command `dynsim probe`."""

import json

import numpy as np
import pytest
import tiny_models as models  # skips where transformers is missing

from dynsim.cli.main import main
from dynsim.models import probing
from dynsim.models.profile import load_profile

MINILM = ("probe", "--model", "minilm", "--tokens", "16", "--samples", "4", "--batch", "2")


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("The tokens of a text become alike, layer by layer, or they do not. " * 12)
    return str(path)


def run(capsys, *words):
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def test_minilm_is_measured_drawn_and_kept(capsys, tmp_path, text):
    words = (*MINILM, "--text", text, "--out", tmp_path, "--json", "--untrained")
    status, out, _ = run(capsys, *words)
    data = json.loads(out)
    assert status == 0
    assert data["verdict"]["kind"] == data["diagnosis"]["kind"]
    assert data["source"]["layers"] == 6
    assert data["untrained"][0]["model"] == "minilm, untrained"
    files = {path.rsplit(".", 1)[1]: path for path in data["files"]}
    assert set(files) == {"nc", "json", "png"}
    profile = load_profile(next(path for path in data["files"] if path.endswith(".nc")))
    assert profile.samples == 4
    assert profile.to_dict()["diagnosis"] == data["diagnosis"]


def test_what_if_changes_what_is_measured(capsys, tmp_path, text):
    found = []
    for change in ((), ("--mask", "local", "--window", "1", "--ln", "off", "--beta", "0.5")):
        words = (*MINILM, "--text", text, "--out", tmp_path, "--json", "--no-figure", *change)
        status, out, _ = run(capsys, *words)
        assert status == 0
        found.append(json.loads(out))
    assert "local" in found[1]["change"]
    assert found[0]["diagnosis"]["numbers"] != found[1]["diagnosis"]["numbers"]


def test_an_interrupted_run_goes_on_to_the_same_numbers(capsys, tmp_path, text, monkeypatch):
    words = (*MINILM, "--text", text, "--out", tmp_path, "--no-figure", "--train-mode")
    status, _, _ = run(capsys, *words, "--name", "whole")
    assert status == 0
    probe, calls = probing.probe, []

    def interrupted(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return probe(*args, **options)

    monkeypatch.setattr(probing, "probe", interrupted)
    status, _, err = run(capsys, *words, "--name", "parts")
    kept = tmp_path / "probe_interrupted.nc"
    assert status == 130
    assert f"--resume {kept}" in err
    monkeypatch.undo()
    status, _, _ = run(capsys, *words, "--name", "parts", "--resume", kept)
    assert status == 0
    whole, parts = (load_profile(tmp_path / f"{name}.nc") for name in ("whole", "parts"))
    assert np.array_equal(whole.residual("mu"), parts.residual("mu"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--model", "minilmm"), "did you mean 'minilm'"),
        (("--model", "minilm", "--tokens", "1"), "tokens"),
        (("--model", "minilm", "--tokens", "600"), "512"),
        (("--model", "minilm", "--window", "4"), "--window is that of a mask"),
        (("--model", "minilm", "--mask", "locall"), "did you mean 'local'"),
        (("--model", "minilm", "--points", "layer_output"), "did you mean 'layers_output'"),
        (("--model", "minilm", "--measured", "head"), "did you mean 'heads'"),
        (("--model", "minilm", "--beta", "-1"), "not negative"),
        (("--model", "minilm", "--resume", "none.nc"), "no profile at none.nc"),
    ],
)
def test_wrong_words_are_one_clear_line(capsys, tmp_path, text, words, said):
    status, out, err = run(capsys, "probe", "--text", text, "--out", tmp_path, *words)
    assert status == 2
    assert out == ""
    assert said in err
    assert len(err.strip().splitlines()) == 1


def test_a_saved_folder_is_measured_without_a_tokenizer_in_words(capsys, tmp_path, text):
    models.make("GPT-2").save_pretrained(tmp_path / "gpt2")
    words = ("probe", "--model", tmp_path / "gpt2", "--text", text, "--out", tmp_path)
    status, _, err = run(capsys, *words)
    assert status == 2
    assert "tokenizer" in err
