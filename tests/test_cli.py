"""The command as a user meets it: output, files, errors, interruption."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch

from dynsim import AttentionDynamics, load, masks, weights
from dynsim._words import build
from dynsim.cli import main as entry
from dynsim.cli import parsing
from dynsim.cli.report import describe_attended
from dynsim.cli.run import main
from dynsim.collapse.transient import deviation_walk, transient_growth
from dynsim.models import excerpts, load_model

SMALL = ["--tokens", "8", "--dim", "4", "--samples", "3", "--depth", "6"]


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*words, capsys):
    status = main([str(w) for w in words])
    return status, *capsys.readouterr()


def run_json(*words, capsys):
    status, out, err = run(*words, "--json", "--no-figure", capsys=capsys)
    assert (status, err) == (0, "")
    return json.loads(out, parse_constant=pytest.fail)


def test_the_main_job_prints_a_table_a_verdict_and_paths(capsys):
    status, out, err = run("--mask", "local", "--ln", "on", *SMALL, capsys=capsys)
    assert (status, err) == (0, "")
    for word in ("radius", "lambda_2", "dynamics", "depth 0", "depth 3", "depth 6", "verdict"):
        assert word in out
    paths = re.findall(r"wrote +(\S+)", out)
    assert [Path(p).suffix for p in paths] == [".nc", ".json", ".png"]
    assert all(Path(p).stat().st_size > 1000 for p in paths)
    assert sorted(os.listdir("results")) == sorted(Path(p).name for p in paths)


def test_json_is_one_object_with_a_value_per_depth(capsys):
    data = run_json("--mask", "causal", *SMALL, "--stride", 4, capsys=capsys)
    assert {"mask", "dynamics", "measures", "verdict", "files"} <= set(data)
    assert data["mask"]["lambda_2"] == 0.5
    assert data["mask"]["diameter"] is None
    for measure in data["measures"].values():
        assert len(measure["mean"]) == len(measure["sd"]) == 7
    assert data["measures"]["rank"]["mean"][1] is None
    trajectory = load(next(p for p in data["files"] if p.endswith(".nc")))
    assert data["measures"]["mu"]["mean"] == trajectory["mu"].mean(axis=0).tolist()
    assert data["measures"]["mu"]["sd"] == trajectory["mu"].std(axis=0, ddof=1).tolist()


@pytest.mark.parametrize("name", masks.MASKS)
def test_every_mask_runs(name, capsys):
    assert run_json("--mask", name, *SMALL, capsys=capsys)["mask"]["tokens"] == 8


@pytest.mark.parametrize(
    "words",
    [
        ["--norm", "layernorm:1.5:eps=1e-3", "--placement", "peri", "--skip", "1"],
        ["--norm", "rms", "--placement", "pre", "--mlp", "gaussian:relu", "--engine", "numba"],
        ["--value", "orthogonal", "--scores", "identity", "--d-qk", "4"],
        ["--value", "jordan:3", "--scores", "zero", "--ln", "on", "--shared"],
        ["--value", "diagonal:1,0.5,0.25,0.1", "--heads", "2", "--mix", "0.5,0.5"],
        ["--heads", "2", "--start", "sphere", "--seed", "7"],
        ["--measures", "all", "--stride", "2", "--states", "3"],
        ["--engine", "reference", "--threads", "1"],
        ["--position", "alibi:0.5,2", "--heads", "2", "--sink=-1,2", "--engine", "numba"],
        ["--position", "rope:50", "--qk-norm", "--beta", "linear:1:4", "--engine", "numba"],
        ["--attention", "softpick:0.1", "--position", "decay:0.8", "--engine", "reference"],
        ["--beta", "linear:0:2:3", "--shared"],
        ["--mask", "bigbird:2:random=1:seed=4", "--window", "2"],
    ],
)
def test_options_reach_the_dynamics(words, capsys):
    data = run_json(*words, *SMALL, capsys=capsys)
    assert np.isfinite(data["measures"]["mu"]["mean"]).all()


def test_different_options_never_share_a_file(capsys):
    for seed in ("0", "1"):
        run_json(*SMALL, "--seed", seed, capsys=capsys)
    assert len(list(Path("results").glob("*.nc"))) == 2


def test_compare_overlays_runs_in_one_figure_and_table(capsys):
    words = ["--compare", "mask=global,local,causal", "--ln", "on", *SMALL]
    status, out, _ = run(*words, capsys=capsys)
    assert status == 0
    assert all(f"mask {name}" in out for name in ("global", "local", "causal"))
    assert len(list(Path("results").glob("*.nc"))) == 3
    assert len(list(Path("results").glob("compare*.png"))) == 1
    data = run_json(*words, capsys=capsys)
    assert set(data["runs"]) == {"mask global", "mask local", "mask causal"}
    assert data["runs"]["mask causal"]["mask"]["lambda_2"] == 0.5


def test_compare_replaces_an_option_given_before(capsys):
    data = run_json("--compare", "norm=unit,rms", "--ln", "on", *SMALL, capsys=capsys)
    kinds = [found["dynamics"]["norm"]["type"] for found in data["runs"].values()]
    assert kinds == ["Unit", "RMSNorm"]


def test_input_and_weights_from_files(rng, capsys):
    np.save("x0.npy", rng.standard_normal((2, 8, 4)))
    np.savez("w.npz", W_V=rng.standard_normal((4, 4)) / 2, M=np.eye(4))
    edges = [(i, i) for i in range(8)] + [(0, i) for i in range(8)]
    nx.write_graphml(nx.DiGraph(edges), "g.graphml")
    data = run_json(
        "--x0", "x0.npy", "--value", "w.npz", "--scores", "w.npz", "--graph", "g.graphml",
        "--depth", 4, capsys=capsys,
    )  # fmt: skip
    assert data["mask"]["center_nodes"] == 1
    assert data["measures"]["mu"]["mean"][0] > 0
    heads = rng.standard_normal((2, 32, 32)) / 8
    np.save("heads.npy", heads)
    data = run_json("--value", "heads.npy", "--depth", 2, capsys=capsys)
    assert data["dynamics"]["weights"]["n_heads"] == 2


def test_real_text_through_real_weights(capsys):
    Path("text.txt").write_text("Attention is a graph, and the graph is the message. " * 20)
    words = ["--text", "text.txt", "--weights", "minilm:2", "--ln", "on", "--skip", 1]
    data = run_json(*words, "--tokens", 16, "--samples", 2, "--depth", 2, capsys=capsys)
    assert data["dynamics"]["weights"]["name"] == "minilm:2"
    assert data["measures"]["mu"]["mean"][2] > 0


def test_all_of_minilm_gives_the_states_of_the_model(capsys):
    text = "Attention is a graph, and the graph is the message. " * 20
    Path("text.txt").write_text(text)
    words = ["--text", "text.txt", "--tokens", 16, "--samples", 2, "--engine", "numba"]
    data = run_json("--weights", "minilm:all", *words, capsys=capsys)
    trajectory = load(data["files"][0])
    source = load_model("minilm")
    with torch.no_grad():
        states = source.model(**excerpts(source, text, 16, 2)).last_hidden_state
    assert np.allclose(trajectory.final, states, atol=1e-5)
    assert trajectory.depth == 6
    sharper = run_json("--weights", "minilm:all", "--beta", 2, *words, capsys=capsys)
    assert sharper["measures"]["mu"]["mean"] != data["measures"]["mu"]["mean"]
    one = run_json("--weights", "minilm:all:0", "--depth", 2, *words, capsys=capsys)
    assert one["measures"]["mu"]["mean"][1] == data["measures"]["mu"]["mean"][1]
    assert one["measures"]["mu"]["mean"][2] != data["measures"]["mu"]["mean"][2]


def test_exports(capsys):
    run(*SMALL, "--export", "csv,json,zarr", "--name", "mine", "--no-figure", capsys=capsys)
    assert {p.name for p in Path("results").iterdir()} == {
        "mine.nc", "mine.json", "mine.csv", "mine.samples.json", "mine.zarr",
    }  # fmt: skip
    assert load("results/mine.zarr") == load("results/mine.nc")


def bad_files():
    np.save("nan.npy", np.array([[1.0, np.nan], [1.0, 1.0]]))
    np.save("zero.npy", np.array([[1.0, 2.0], [0.0, 0.0]]))
    np.save("flat.npy", np.ones(3))
    np.save("small.npy", np.eye(3))
    np.save("pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save("wide.npy", np.ones((2, 3)))
    np.save("signed.npy", np.array([[1.0, 0.0], [-1.0, 1.0]]))
    np.save("weighted.npy", np.array([[1.0, 0.0], [0.25, 0.75]]))
    np.save("hole.npy", np.diag([1.0, 0.0]))
    Path("junk.npz").write_text("junk")
    Path("matrix.csv").write_text("1,0,1,1\n1,1,0,0\n")
    Path("empty.txt").write_text("\n")
    Path("short.txt").write_text("three small words")
    Path("binary.txt").write_bytes(b"\xff\xfe\x00")
    Path("file").write_text("")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--mask ring-road", "known are complete"),
        ("--norm batch", "known are none, unit, rms, layernorm"),
        ("--value cauchy", "known are identity"),
        ("--scores cauchy", "known are identity"),
        ("--value jordan", "jordan:W"),
        ("--value jordan:x", "got 'x'"),
        ("--value gaussian:-1", "positive"),
        ("--value gaussian:1:2", "takes 1 parameter"),
        ("--mask star:3", "takes 0 parameters"),
        ("--mask sinks:colour=3", "no parameter 'colour'"),
        ("--mlp deep", "known are none, gaussian"),
        ("--mlp gaussian:tanh", "known are gelu, gelu_tanh, relu"),
        ("--placement middle", "known are post, pre, peri"),
        ("--start moon", "known are gaussian, sphere"),
        ("--engine abacus", "known are numba, reference"),
        ("--measures mu,nu", "known are mu"),
        ("--export pickle", "known are csv"),
        ("--weights gpt:0", "minilm:0 to minilm:5"),
        ("--weights minilm:9", "layers 0..5"),
        ("--mask local --window 0", "nothing mixes"),
        ("--mask local --window 64", "use 1 to 63"),
        ("--mask local --window 8 --tokens 8", "use 1 to 7"),
        ("--depth 0", "positive number of layers"),
        ("--depth -5", "positive number of layers"),
        ("--tokens 0", "at least 1"),
        ("--samples 0", "at least 1"),
        ("--dim 0", "at least 1"),
        ("--heads 0", "heads is a whole number, at least 1"),
        ("--heads 5", "does not divide"),
        ("--heads 2 --mix 1", "one finite weight per head"),
        ("--mix a", "list of numbers"),
        ("--d-qk 0", "positive"),
        ("--skip nan", "finite"),
        ("--seed -1", "not negative"),
        ("--threads 0", "at least 1"),
        ("--stride 0", "at least 1"),
        ("--stride often", "'auto' or a number"),
        ("--states -1", "at least 0"),
        ("--x0 missing.npy", "no file at"),
        ("--x0 nan.npy", "nan at index (0, 1)"),
        ("--x0 flat.npy", "tokens are"),
        ("--x0 pickle.npy", "not readable"),
        ("--x0 junk.npz", "not readable"),
        ("--x0 zero.npy --ln on", "token 1 has none"),
        ("--x0 small.npy --tokens 4", "which has 3"),
        ("--x0 small.npy --text empty.txt", "choose one"),
        ("--x0 small.npy --value small.npy --dim 4", "which has 3"),
        ("--value small.npy --dim 4", "dimension 4"),
        ("--value wide.npy", "square"),
        ("--value nan.npy", "nan at index"),
        ("--graph missing.gml", "no graph file"),
        ("--graph wide.npy", "square"),
        ("--graph hole.npy", "row 1 of the mask is empty"),
        ("--graph small.npy --tokens 4", "mask is for 3 tokens"),
        ("--graph signed.npy", "holds 0 and 1, or booleans; got -1; "),
        ("--graph weighted.npy", "got 0.25; if every entry but 0 is an edge give `array != 0`"),
        ("--graph nan.npy", "replace NaN by 0"),
        ("--mask casual", "did you mean 'causal'? known are complete"),
        ("--norm layernrom", "did you mean 'layernorm'? known"),
        ("--value orthognal", "did you mean 'orthogonal'? known"),
        ("--scores guassian", "did you mean 'gaussian'? known"),
        ("--mlp gausian", "did you mean 'gaussian'? known"),
        ("--start sfere", "did you mean 'sphere'? known"),
        ("--engine nunba", "did you mean 'numba'? known"),
        ("--measures stable_rnk", "did you mean 'stable_rank'? known"),
        ("--placement prae", "did you mean 'pre'? known"),
        ("--position alibbi", "did you mean 'alibi'? known"),
        ("--position decay", "needs rate: write decay:RATE"),
        ("--position decay:2", "above 0 and at most 1; got 2"),
        ("--position rope --dim 7", "an even number of them; got 7"),
        ("--position rope --scores orthogonal", "queries and keys are known of gaussian"),
        ("--attention softmx", "did you mean 'softmax'? known"),
        ("--attention sigmoid --sink 1", "a sink is for the softmax; got Sigmoid()"),
        ("--sink 1,2", "got 2 numbers for 1 heads"),
        ("--qk-norm rsm", "did you mean 'rms'? known"),
        ("--qk-norm unit:2 --beta 3", "both give the factor of the scores"),
        ("--qk-norm --scores jordan:1", "given whole; give W_Q and W_K"),
        ("--beta linear:1", "schedule 'linear' needs last"),
        ("--beta linear:-1:2", "finite and not negative; got -1"),
        ("--beta spiral:1", "unknown schedule 'spiral'"),
        ("--engine numba --attention hardmax", "it does not know kind=Hardmax()"),
        ("--engine logscale --position rope", "it does not know position=RoPE"),
        ("--compare position=none,alibbi", "did you mean 'alibi'? known"),
        ("--compare qk-norm=none,none:1", "QK-norm 'none' takes 0 parameters"),
        ("--export jsn", "did you mean 'json'? known"),
        ("--compare masks=causal", "did you mean 'mask'? known"),
        ("--weights minilm --depth 7", "there are weights for 6 layers; got --depth 7"),
        ("--graph junk.npz", "junk.npz"),
        ("--text missing.txt", "cannot read the text"),
        ("--text empty.txt", "empty"),
        ("--text short.txt", "too short"),
        ("--text binary.txt", "not UTF-8"),
        ("--text short.txt --embed gpt", "known are minilm"),
        ("--out file/below", "cannot write there"),
        ("--name a/b", "--name is"),
        ("--compare colour=red", "mask, window"),
        ("--compare mask", "mask, window"),
        ("--compare mask=", "at least one value"),
        ("--compare mask=global,ring-road", "known are complete"),
        ("--compare window=1,2", "has no window"),
        ("--compare skip=0,0.0", "one and the same run"),
        ("--compare mask=local,causal --graph small.npy", "leave --mask and --window out"),
        ("--graph small.npy --window 2", "leave --mask and --window out"),
        ("--weights minilm:0 --heads 3", "brings all matrices; leave --heads out"),
        ("--weights minilm:0 --shared", "brings all matrices; leave --shared out"),
        ("--weights minilm:all --ln off", "brings whole layers; leave --ln out"),
        ("--weights minilm:all --d-qk 3 --skip 0", "leave --d-qk, --skip out"),
        ("--weights minilm:all:0 --norm rms --mlp none", "leave --norm, --mlp out"),
        ("--weights minilm:all --placement post", "leave --placement out"),
        ("--weights minilm:al", "did you mean 'minilm:all'? known"),
        ("--weights minilm:0:all", "known are minilm, minilm:0 to minilm:5, minilm:all"),
        ("--weights minilm:all --depth 7", "there are weights for 6 layers; got --depth 7"),
        ("--weights minilm:all --dim 5", "shape (384,) for tokens of dimension 5"),
        ("--text short.txt --dim 5", "minilm has 384"),
        ("--norm rms:eps=nan", "not negative"),
        ("--norm layernorm:1,x", "a number or a list"),
        ("--norm layernorm:1,2", "one entry per dimension"),
        ("--mask bigbird:seed=-1", "the seed lies in"),
        ("--mask local:1.5", "a whole number"),
        ("--graph matrix.csv", "two token numbers"),
        ("--resume missing.nc --tokens 9", "leave --tokens out"),
        ("--resume missing.nc", "no trajectory"),
        ("--resume junk.npz", "not a dynsim trajectory"),
        ("--resume junk.npz --compare ln=on,off", "do not go together"),
    ],
)
def test_bad_input_gets_one_line_and_exit_2_before_any_work(words, expected, capsys):
    bad_files()
    before = set(os.listdir())
    status, out, err = run(*words.split(), capsys=capsys)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert expected in err
    assert set(os.listdir()) == before  # nothing was made


@pytest.mark.parametrize(
    "words",
    [
        "--colour red",
        "--depth 1e3",
        "--ln maybe",
        "--ln on --norm rms",
        "--compare ln=on,maybe",
        "--sink x",
        "--beta x",
    ],
)
def test_errors_of_the_parser_are_one_line_too(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    err = capsys.readouterr().err
    assert caught.value.code == 2
    assert err.count("\n") == 1
    assert "--help" in err


def test_a_folder_in_the_way_is_found_before_the_work(capsys):
    Path("results/mine.nc").mkdir(parents=True)
    status, _, err = run("--name", "mine", *SMALL, capsys=capsys)
    assert status == 2
    assert "is a folder" in err


def test_parts_of_attention_are_compared_and_said(capsys):
    words = ["--compare", "qk-norm=none,rms:2", "--compare", "position=none,alibi", "--qk-norm"]
    data = run_json(*words, "--sink", "0.5", "--engine", "numba", *SMALL, capsys=capsys)
    assert len(data["runs"]) == 4
    assert main(["--attention", "sigmoid", "--position", "rope", *SMALL, "--no-figure"]) == 0
    out, err = capsys.readouterr()
    assert "position RoPE(base=10000.0); kind Sigmoid()" in out
    assert "it does not know kind=Sigmoid(): torch is used" in err


def test_values_with_commas_can_be_compared(capsys):
    words = ["--compare", "value=diagonal:1,2,3,4;diagonal:0.5", *SMALL]
    assert len(run_json(*words, capsys=capsys)["runs"]) == 2


def test_one_overflow_does_not_stop_the_comparison(capsys):
    words = ["--compare", "value=zero,identity", "--scores", "zero", "--ln", "on", *SMALL]
    status, out, err = run(*words, "--json", "--no-figure", capsys=capsys)
    assert status == 1
    assert err.startswith("dynsim run: value zero: token 0 of sample 0 has no size")
    runs = json.loads(out, parse_constant=pytest.fail)["runs"]
    assert "no size" in runs["value zero"]["error"]
    assert runs["value identity"]["verdict"]["kind"] == "collapsed"


def test_huge_values_stay_valid_json(capsys):
    words = ["--mask", "local", "--value", "diagonal:1e150", "--scores", "zero", *SMALL[:-1], "2"]
    data = run_json(*words, capsys=capsys)
    assert data["measures"]["mu"]["sd"][2] > 1e290


def test_help_has_groups_and_examples(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    out = capsys.readouterr().out
    assert caught.value.code == 0
    assert all(word in out for word in ("mask:", "dynamics:", "tokens:", "output:", "examples:"))
    assert all(name in out for name in [*masks.MASKS, *weights.WEIGHTS])


def test_overflow_names_layer_and_sample_keeps_the_run_and_exits_1(capsys):
    words = ["--scores", "zero", "--value", "diagonal:1e10", *SMALL[:-1], "60"]
    status, out, err = run(*words, capsys=capsys)
    assert status == 1
    assert re.search(r"sample \d+ .* layer 3\d", err)
    assert err.count("\n") == 1
    kept = load(re.search(r"wrote +(\S+\.nc)", out).group(1))
    assert 25 < kept.depth < 35


def test_resume_goes_on_to_the_same_bits(capsys):
    base = ["--mask", "causal", "--tokens", 8, "--dim", 4, "--samples", 2, "--stride", 1]
    whole = run_json(*base, "--depth", 12, "--name", "whole", capsys=capsys)
    run_json(*base, "--depth", 5, "--name", "part", capsys=capsys)
    resumed = run_json(
        "--resume", "results/part.nc", "--depth", 12, "--name", "rest", capsys=capsys
    )
    assert resumed["measures"] == whole["measures"]
    assert load("results/rest.nc") == load("results/whole.nc")
    status, _, err = run("--resume", "results/rest.nc", "--depth", 12, capsys=capsys)
    assert status == 2
    assert "already has depth 12" in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_what_was_computed_and_can_be_resumed(number, capsys):
    command = [
        sys.executable, "-m", "dynsim.run", "--tokens", "48", "--samples", "4", "--depth", "500000",
        "--measures", "rank", "--name", "long", "--no-figure",
    ]  # fmt: skip
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind a "&"
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    try:
        while not process.stdout.readline().startswith("input"):
            assert process.poll() is None
        time.sleep(4)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "stopped after layer" in err
    assert "; go on with --resume results/long.nc --depth 500000" in err
    assert "verdict" in out
    kept = load("results/long.nc")
    assert 0 < kept.depth < 500_000
    assert not [name for name in os.listdir("results") if name.startswith(".")]
    words = ["--resume", "results/long.nc", "--depth", kept.depth + 3, "--name", "more"]
    data = run_json(*words, capsys=capsys)
    assert len(data["measures"]["mu"]["mean"]) == kept.depth + 4


def test_the_entry_points(capsys):
    assert entry.main([]) == 0
    assert "run" in capsys.readouterr().out
    assert entry.main(["--version"]) == 0
    assert entry.main(["walk"]) == 2
    assert "known are run" in capsys.readouterr().err
    assert entry.main(["run", *SMALL, "--no-figure"]) == 0


def test_objects_are_built_by_position_and_name():
    graph = build("mask", masks.MASKS, "sinks:2:window=3", 9, given={"window": 1})
    assert graph.name == "sinks(9, window=3, sinks=2)"
    assert build("mask", masks.MASKS, "local:3", 9, given={"window": 1}).name == (
        "local(9, window=3)"
    )
    diagonal = build("family", weights.WEIGHTS, "diagonal:1,2")
    assert diagonal == weights.Diagonal((1.0, 2.0))
    assert build("family", weights.WEIGHTS, "gaussian") == weights.Gaussian()
    assert "jordan:W" in parsing.usage(weights.WEIGHTS)


# --- as a process -------------------------------------------------------------------------------


def command(*words, **options):
    line = [sys.executable, "-m", "dynsim.run", *map(str, words)]
    return subprocess.run(line, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--help"], 0),
        ([*SMALL, "--no-figure"], 0),
        (["--scores", "zero", "--value", "diagonal:1e300", *SMALL, "--no-figure"], 1),
        (["--depth", "0"], 2),
        (["--depth", "many"], 2),
    ],
)
def test_the_process_ends_with_the_status_and_all_of_the_output(words, status):
    done = command(*words, stdout=subprocess.PIPE)
    assert done.returncode == status
    assert done.stderr.count("\n") == (status > 0)
    if status < 2:
        assert done.stdout.endswith("\n")
        assert "dynsim[minilm]" in done.stdout or "wrote" in done.stdout.splitlines()[-1]


def test_a_reader_that_goes_away_is_no_error_of_ours():
    reader, writer = os.pipe()
    os.close(reader)
    done = command(*SMALL, "--no-figure", stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_cannot_be_written_is_an_error():
    with open("/dev/full", "w") as full:
        done = command(*SMALL, "--no-figure", "--json", stdout=full)
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_through_head_ends_in_silence():
    line = f"{sys.executable} -m dynsim.run --help | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


@pytest.mark.parametrize("figure", [False, True])
def test_the_main_job_loads_only_what_it_needs(figure):
    words = [*SMALL, "--mask", "local", *["--no-figure"] * (not figure)]
    main(words)  # Numba compiles the kernels, once
    code = f"from dynsim.cli.run import main; main({words}); import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {"numba", "xarray", "pandas", "matplotlib.pyplot", "rich", "scipy.sparse", "torch"}
    assert not loaded & heavy
    assert "h5netcdf" in loaded
    assert ("matplotlib" in loaded) == figure


def test_a_figure_that_cannot_be_written_is_one_line_and_leaves_the_run(capsys, monkeypatch):
    def full(figure, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("dynsim.results.plots.save", full)
    status, _, err = run("--name", "mine", *SMALL, capsys=capsys)
    assert (status, err.count("\n")) == (2, 1)
    assert "No space left on device" in err
    assert load("results/mine.nc").depth == 6
    assert json.loads(Path("results/mine.json").read_text())["verdict"]["sentence"]


def test_mu_is_followed_below_the_floor_unless_something_forbids_it(capsys):
    words = ["--value", "identity", "--samples", "1", "--tokens", "6", "--dim", "4", "--depth", "9"]
    data = run_json(*words, capsys=capsys)
    assert data["provenance"]["engine"] == "logscale"
    assert data["measures"]["log10_mu"]["mean"][-1] < -1000
    assert data["measures"]["mu"]["mean"][-1] == 0
    status, out, err = run(*words, "--mlp", "gaussian", "--json", "--no-figure", capsys=capsys)
    assert (status, err.count("\n")) == (0, 1)
    assert "floating-point floor only: an MLP" in err
    assert json.loads(out)["provenance"]["engine"] == "numba"
    status, out, err = run(*words, "--mlp", "gaussian", "--engine", "logscale", capsys=capsys)
    assert status == 2
    assert "does not apply: an MLP" in err


def test_a_comparison_shows_mu_at_depths_n_and_128(capsys):
    """The reference values of uniform attention, N = 128, W_V = I, within their spread over starts:
    sliding window .17, the window that looks one way .4 to .5, causal 1e-15 and less."""
    words = ["--compare", "mask=local,causal-local,causal", "--tokens", "128", "--dim", "16"]
    words += ["--samples", "4", "--scores", "zero", "--value", "identity", "--no-figure"]
    assert main([*words, "--depth", "128"]) == 0
    head, *rows, note = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert note.startswith("~ within rounding (float64)")  # of the causal run's stable rank
    columns = [name.strip() for name in head.split("  ") if name]
    assert columns.count("mu_128 / mu_0") == 1
    cells = [[c.strip() for c in row.split("  ") if c] for row in rows]
    ratio = {row[0].split()[1]: float(row[columns.index("mu_128 / mu_0")]) for row in cells}
    assert 0.1 < ratio["local"] < 0.25
    assert 0.3 < ratio["causal-local"] < 0.6
    assert ratio["causal"] < 1e-14
    assert main([*words, "--depth", "127"]) == 0
    assert "mu_128" not in capsys.readouterr().out


def test_theory_beside_a_run_and_a_comparison(tmp_path, capsys):
    common = ["--tokens", "8", "--dim", "4", "--samples", "2", "--value", "identity"]
    common += ["--scores", "zero", "--depth", "30", "--theory", "--out", str(tmp_path)]
    assert main(["--mask", "causal", *common]) == 0
    said = capsys.readouterr().out
    assert "predicted near consensus mu goes by a factor 0.5 per layer" in said
    assert "WU theorem 2: does not apply: it is for unit norm" in said
    growth = transient_growth(deviation_walk(masks.causal(8)))
    assert f"largest ||P^t|| = {growth.factor:.4g} at t = {growth.power}, Kreiss" in said
    assert main(["--compare", "mask=causal,local", *common, "--no-figure", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["runs"]
    assert found["mask causal"]["theory"]["prediction"]["rate"] == pytest.approx(0.5)
    assert found["mask local"]["theory"]["prediction"]["kreiss"] >= 1
    bound = found["mask local"]["theory"]["bounds"]["Dobrushin"]["log10_bound"]
    assert len(bound) == 31
    assert main(["--tokens", "2000", "--theory", "--out", str(tmp_path)]) == 2
    assert "--theory is for 2 to 1024 tokens" in capsys.readouterr().err


# --- found by those who tried to break it -------------------------------------------------------


def test_tokens_that_overflow_in_the_first_layer_leave_their_files(capsys, tmp_path):
    options = "--scores gaussian:1e300 --tokens 6 --dim 4 --samples 2 --depth 3"
    status = main([*options.split(), "--no-figure", "--out", str(tmp_path)])
    out, err = capsys.readouterr()
    assert status == 1
    assert "layer 1; what was computed up to depth 0 is kept" in err
    assert len(err.splitlines()) == 1
    (saved,) = tmp_path.glob("*.nc")
    assert load(saved).depth == 0
    assert "distance to consensus" in out


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (
            "--mask causal --window 2",
            "the mask 'causal' has no window.* use one of .*causal-local",
        ),
        ("--compare ln=on --compare ln=off", "--compare ln= is given twice"),
        ("--compare window=1..100000", "a range has at most 1000 values"),
        ("--compare window=16..1", "a range is A..B of whole numbers or A..B..STEP, upwards"),
        ("--compare beta=0..1..0", "a range is A..B of whole numbers or A..B..STEP, upwards"),
        ("--compare seed=1..40 --compare dim=1..40", "makes 1600 runs, more than 1000"),
        ("--beta nan", "beta is finite and not negative; got nan"),
        ("--beta -1", "beta is finite and not negative; got -1"),
        ("--name ..", "--name is up to 60 letters"),
        (
            "--samples 100000000000",
            r"take 3.05e\+06 GiB, and this machine has .*; use fewer samples",
        ),
        ("--depth 100000000000", "measures of 16 samples .* use fewer samples or layers"),
        ("--tokens 65536 --depth 10000000", "would take about .* years here; use fewer layers"),
    ],
)
def test_what_cannot_be_meant_or_done_is_refused_before_any_work(options, rule, capsys, tmp_path):
    assert main([*options.split(), "--out", str(tmp_path)]) == 2
    out, err = capsys.readouterr()
    assert re.search(rule, err)
    assert (out, len(err.splitlines())) == ("", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_run_says_what_its_first_and_last_token_attend_to(capsys, tmp_path):
    np.save(tmp_path / "tril.npy", np.tril(np.ones((8, 8))))
    small = [word for word in SMALL if word not in ("--tokens", "8")]
    out = run("--graph", tmp_path / "tril.npy", *small, "--no-figure", capsys=capsys)[1]
    assert "attends   token 0 to 0; token 7 to 0 to 7 (8 tokens)" in out
    np.save(tmp_path / "shift.npy", np.eye(8, k=-1))
    status, _, err = run("--graph", tmp_path / "shift.npy", *small, capsys=capsys)
    assert status == 2
    assert "row 0 of the mask is empty" in err
    more = "--self-loops", "--no-figure"
    out = run("--graph", tmp_path / "shift.npy", *small, *more, capsys=capsys)[1]
    assert "attends   token 0 to 0; token 7 to 6, 7" in out


def test_what_tokens_attend_to_takes_no_array_of_all_edges():
    many = AttentionDynamics(masks.complete(10**6), weights.Identity())
    said = "token 0 to 0 to 999999 (1000000 tokens); token 999999 to 0 to 999999 (1000000 tokens)"
    assert describe_attended(many) == said


FULL_DISK = """
import resource, sys
from dynsim.cli.run import main

words = "--tokens 8 --dim 4 --samples 3 --depth 6 --engine reference --name full".split()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(main([*words, *sys.argv[2:]]))
"""


@pytest.mark.parametrize(
    ("limit", "words", "refused", "left"),
    [
        (1000, [], "full.nc", []),
        (40_000, ["--dim", "400"], "full.nc", []),
        (500_000, ["--export", "json", "--depth", "900"], "full.samples.json", ["full.nc"]),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_no_half_file(limit, words, refused, left):
    """A limit of the size of files stands for the disk: the same error for what writes."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(limit), *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "nothing was written; free some space or write to another folder" in done.stderr
    assert done.stderr.endswith(f": 'results/{refused}'\n")
    assert os.listdir("results") == left
