"""Options for what stands around attention on the command line, and presets."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from dynsim import gates, load, norms, residual
from dynsim.cli.presets import PRESETS, apply_preset
from dynsim.cli.presets import main as list_presets
from dynsim.cli.run import COMMAND, main
from dynsim.cli.runs import COMPARABLE
from dynsim.network.attention import QK_NORMS, Softmax
from dynsim.network.positions import RoPE

SMALL = ["--tokens", "6", "--dim", "4", "--samples", "2", "--depth", "8", "--no-figure"]


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*words, capsys):
    status = main([str(word) for word in words])
    return status, *capsys.readouterr()


def made(*words, capsys):
    """The dynamics of a run with these options, from its file."""
    status, out, err = run(*words, *SMALL, "--json", capsys=capsys)
    assert status == 0, err
    found = json.loads(out)
    return load(next(path for path in found["files"] if path.endswith(".nc"))).rebuild_dynamics()


def test_options_reach_the_dynamics_and_its_file(capsys):
    dynamics = made("--norm", "dyt:0.7", "--skip", "layerscale:0.2", capsys=capsys)
    assert (dynamics.norm, dynamics.skip) == (norms.DyT(0.7), residual.layer_scale(0.2))
    words = ["--placement", "mix-ln:0.5", "--norm", "layernorm", "--skip", "deepnorm"]
    dynamics = made(*words, capsys=capsys)
    assert dynamics.placement == ("post",) * 4 + ("pre",) * 4
    assert dynamics.skip == residual.deepnorm(8)
    words = ["--placement", "sandwich", "--norm", "derf:0.6:0.1", "--skip", "1", "--ln-scaling"]
    dynamics = made(*words, capsys=capsys)
    assert dynamics.placement == "peri"
    assert dynamics.norm == norms.ln_scaling(norms.Derf(0.6, 0.1), 8)
    words = ["--placement", "ngpt", "--ln", "on", "--skip", "lerp", "--gate", "headwise:2"]
    dynamics = made(*words, "--heads", 2, "--seed", 7, capsys=capsys)
    assert dynamics.skip == residual.lerp(0.05)
    assert dynamics.gate == gates.GaussianGate(2.0, headwise=True, seed=7)
    dynamics = made("--skip", "1,.9,.8,.7,.6,.5,.4,.3", capsys=capsys)
    assert dynamics.residual.layer(1).skip == 0.9


def test_a_run_goes_on_with_its_parts(capsys):
    words = ["--norm", "dyt", "--skip", "deepnorm", "--mask", "causal"]
    status, out, _ = run(*words, *SMALL, "--json", capsys=capsys)
    file = next(path for path in json.loads(out)["files"] if path.endswith(".nc"))
    status, out, err = run("--resume", file, "--depth", 12, "--no-figure", "--json", capsys=capsys)
    assert (status, err.count("error")) == (0, 0)
    longer = load(next(path for path in json.loads(out)["files"] if path.endswith(".nc")))
    assert longer.depth == 12
    assert longer.rebuild_dynamics().skip == residual.deepnorm(8)
    status, _, err = run("--resume", file, "--depth", 12, "--preset", "bert", capsys=capsys)
    assert (status, "leave --preset out" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--skip deepnrm", "did you mean 'deepnorm'"),
        ("--skip nan", "finite"),
        ("--skip 1,2", "8"),
        ("--skip layerscale:x", "is a number"),
        ("--placement mixln:0.2", "did you mean 'mix-ln'"),
        ("--placement mix-ln:2", "from 0 to 1"),
        ("--norm dyt:inf", "a of DyT is finite"),
        ("--ln-scaling", "NoNorm has none"),
        ("--gate gausian", "did you mean 'gaussian'"),
        ("--preset gtp2", "did you mean 'gpt2'"),
        ("--weights minilm:all --preset bert", "leave --preset out"),
        ("--gate gaussian --engine logscale", "engine='torch'"),
        ("--gate gaussian --engine numba", "engine='torch'"),
        ("--norm dyt --engine logscale", "engine='numba'"),
        ("--compare placement=peri,sandwich --norm rms", "one and the same run"),
    ],
)
def test_errors_are_one_line(words, said, capsys):
    status, _, err = run(*words.split(), *SMALL, capsys=capsys)
    last = err.splitlines()[-1]
    assert status == 2
    assert said in last


def test_an_engine_is_chosen_and_said(capsys):
    status, _, err = run("--gate", "gaussian", *SMALL, capsys=capsys)
    assert status == 0
    assert "mu is followed to the floating-point floor only" in err
    assert "gate=" in err


# --- presets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_runs_and_says_what_it_sets(name, capsys):
    status, out, _ = run("--preset", name, "--heads", 2, *SMALL, capsys=capsys)
    assert status == 0
    for option, value in PRESETS[name].options.items():
        assert f"{option} = {value}" in out
    known = {word for action in COMMAND.parser()._actions for word in action.option_strings}
    assert {f"--{option}" for option in PRESETS[name].options} <= known


def test_presets_are_the_layers_of_their_models(capsys):
    gpt2 = made("--preset", "gpt2", capsys=capsys)
    assert (gpt2.norm, gpt2.placement, gpt2.skip) == (norms.LayerNorm(eps=1e-5), "pre", 1.0)
    assert (gpt2.mlp.activation, gpt2.mask.name) == ("gelu_tanh", "causal(6)")
    ngpt = made("--preset", "ngpt", capsys=capsys)
    assert (ngpt.norm, ngpt.placement, ngpt.skip) == (norms.Unit(), "ngpt", residual.lerp(0.05))
    assert ngpt.qk_norm == QK_NORMS["rms"]()
    assert made("--preset", "gemma3", capsys=capsys).placement == "peri"
    assert made("--preset", "llama", capsys=capsys).position == RoPE(500000.0)
    assert made("--preset", "gpt-oss", capsys=capsys).kind == Softmax(0.0)
    assert not made("--preset", "qwen3", "--qk-norm", "none", capsys=capsys).qk_norm.active


def test_options_that_are_given_win(capsys):
    words = ["--preset", "bert", "--placement", "pre", "--ln", "on"]
    status, out, _ = run(*words, *SMALL, capsys=capsys)
    assert "placement = pre, as given" in out
    assert "norm: as --ln says" in out
    dynamics = made(*words, capsys=capsys)
    assert (dynamics.placement, dynamics.norm) == ("pre", norms.Unit())
    options = SimpleNamespace(preset="gpt2", weights=None, mask=None, graph="g.npy", norm=None,
                              ln=None, placement=None, skip=None, mlp=None)  # fmt: skip
    apply_preset(options)
    assert (options.mask, options.placement) == (None, "pre")
    status, out, _ = run("--compare", "preset=bert,gpt2,ngpt", *SMALL, capsys=capsys)
    assert status == 0
    assert {"preset", "gate", "skip", "placement", "norm"} <= set(COMPARABLE)
    assert all(f"preset {name}" in out for name in ("bert", "gpt2", "ngpt"))


def test_presets_are_listed(capsys):
    assert list_presets([]) == 0
    out = capsys.readouterr().out
    assert all(name in out and preset.source in out for name, preset in PRESETS.items())
    assert list_presets(["gpt2", "ngpt"]) == 0
    assert "Qwen3" not in capsys.readouterr().out
    assert list_presets(["gtp2"]) == 2
    assert "did you mean 'gpt2'" in capsys.readouterr().err
    assert list_presets(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)["presets"]
    assert found["ngpt"]["options"]["skip"] == "lerp:0.05"
    assert np.all([set(one) == {"options", "source", "lacks"} for one in found.values()])
