import contextlib
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from dynsim import _files, tokens
from dynsim._files import read_arrays, read_named_arrays, written_whole


@pytest.fixture
def array(rng):
    return rng.standard_normal((4, 3))


def test_every_kind_of_file_reads_back(array, tmp_path):
    from safetensors.numpy import save_file

    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "b.npz", x0=array, other=array[:1])
    np.savetxt(tmp_path / "c.csv", array, delimiter=",", header="x,y,z", comments="")
    save_file({"x0": array}, tmp_path / "d.safetensors")
    for path in tmp_path.iterdir():
        assert np.allclose(tokens.from_file(path), array, rtol=1e-15), path.name


def test_float32_stays_float32(array, tmp_path):
    np.save(tmp_path / "a.npy", array.astype(np.float32))
    assert tokens.from_file(tmp_path / "a.npy").dtype == np.float32
    np.save(tmp_path / "b.npy", np.arange(6).reshape(3, 2))
    assert tokens.from_file(tmp_path / "b.npy").dtype == np.float64


def test_bad_files_say_what_is_wrong(array, tmp_path):
    cases = {"missing.npy": "no file at"}
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    cases["pickled.npy"] = "not readable"
    for name in ("corrupt.npy", "corrupt.npz", "corrupt.safetensors", "corrupt.csv"):
        (tmp_path / name).write_text("1,2\n3,nonsense\n")
        cases[name] = "not readable"
    (tmp_path / "typo.csv").write_text("1.0,2.O\n3,4\n")
    cases["typo.csv"] = "not readable"
    (tmp_path / "hole.csv").write_text("1.5,\n3,4\n")
    cases["hole.csv"] = "not readable"
    (tmp_path / "empty.csv").write_text("")
    cases["empty.csv"] = "holds no array"
    (tmp_path / "kind.xyz").write_text("")
    cases["kind.xyz"] = "unknown kind"
    np.save(tmp_path / "words.npy", np.array([["a"]]))
    cases["words.npy"] = "must hold real numbers"
    broken = array.copy()
    broken[2, 1] = np.nan
    np.save(tmp_path / "nan.npy", broken)
    cases["nan.npy"] = r"nan at index \(2, 1\)"
    np.savez(tmp_path / "many.npz", a=array, b=array)
    cases["many.npz"] = "several arrays"
    np.save(tmp_path / "flat.npy", array[0])
    cases["flat.npy"] = "tokens are"
    for name, words in cases.items():
        with pytest.raises(ValueError, match=words):
            tokens.from_file(tmp_path / name)


def test_named_arrays_are_read_by_name(array, tmp_path):
    np.savez(tmp_path / "w.npz", M=array, W_V=2 * array)
    assert list(read_named_arrays(tmp_path / "w.npz")) == ["M", "W_V"]
    assert np.array_equal(read_arrays(tmp_path / "w.npz", prefer="W_V"), 2 * array)


def test_drawn_tokens_are_what_they_say():
    assert np.allclose(np.linalg.norm(tokens.sphere(3, 5, 4), axis=-1), 1)
    big = tokens.gaussian(1, 300, 300)
    assert abs(big.mean()) < 0.02
    assert abs(big.std() - 1) < 0.02
    with pytest.raises(ValueError, match="at least 1"):
        tokens.gaussian(0, 3, 3)


def test_a_byte_order_mark_costs_no_row(tmp_path):
    (tmp_path / "excel.csv").write_text("1,2\n3,4\n5,6\n", encoding="utf-8-sig")
    assert tokens.from_file(tmp_path / "excel.csv").shape == (3, 2)


def test_a_folder_in_the_way_is_not_deleted(tmp_path):
    (tmp_path / "mine.nc").mkdir()
    (tmp_path / "mine.nc" / "data").write_text("precious")
    with pytest.raises(ValueError, match="is a folder"), written_whole(tmp_path / "mine.nc"):
        pass
    assert (tmp_path / "mine.nc" / "data").read_text() == "precious"


# --- full disks and killed processes --------------------------------------------------------------

#: Everything that dynsim writes, into the folder argv[1]; `limit` comes before.
WRITERS = """
import os, sys
from pathlib import Path
import matplotlib, numpy as np, xarray, zarr
import dynsim
from dynsim._files import written_whole
from dynsim.results import plots

matplotlib.use("agg")
from matplotlib.figure import Figure

out = Path(sys.argv[1])
dynamics = dynsim.AttentionDynamics(dynsim.masks.causal(16), dynsim.weights.Weights())
run = dynsim.simulate(dynamics, dynsim.tokens.gaussian(16, 16, 32), 64)
figure = Figure()
figure.subplots().plot(np.random.default_rng(0).random(5000))

def npz(path):
    with written_whole(path) as temporary:
        np.savez_compressed(temporary, noise=np.random.default_rng(0).random(20_000))

writers = {"nc": run.save, "zarr": run.save, "csv": run.to_csv, "json": run.to_json, "npz": npz}
writers |= dict.fromkeys(("png", "svg", "pdf"), lambda path: plots.save(figure, path))
"""
TRIED = """
for suffix, write in writers.items():
    try:
        write(out / f"run.{suffix}")
    except OSError as error:
        assert str(out / f"run.{suffix}") in str(error), error
        assert "nothing was written; free some space" in str(error), error
        assert "\\n" not in str(error)
    else:
        raise AssertionError(f"{suffix} was written")
    assert os.listdir(out) == [], os.listdir(out)
"""
LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2048, resource.RLIM_INFINITY))"


def in_a_process(program, *arguments):
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_files_that_may_not_be_so_large_are_one_clear_error(tmp_path):
    done = in_a_process(WRITERS + LIMIT + TRIED, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12k", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root mounts a disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_one_clear_error(small_disk):
    done = in_a_process(WRITERS + TRIED, small_disk)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    wanted = r"File exists, so nothing was written; write to another folder: '.*file/run.nc'"
    with pytest.raises(OSError, match=wanted), written_whole(tmp_path / "file" / "run.nc"):
        pass


def test_other_errors_while_writing_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="missing"), written_whole(tmp_path / "run.nc"):
        (tmp_path / "missing").read_text()
    assert os.listdir(tmp_path) == []


WRITING = """
import sys, time
from dynsim._files import written_whole
with written_whole(sys.argv[1]) as temporary:
    temporary.write_text("half")
    print(flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def writing(path):
    """Another process that has written half of the file."""
    command = [sys.executable, "-c", WRITING, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def written(path, text):
    with written_whole(path) as temporary:
        temporary.write_text(text)


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    with writing(tmp_path / "run.csv") as process:
        (left,) = os.listdir(tmp_path)
        written(tmp_path / "other.csv", "another")
        assert sorted(os.listdir(tmp_path)) == [left, "other.csv"]  # it still lives
        process.send_signal(signal.SIGKILL)
        process.wait()
        os.rename(tmp_path / left, tmp_path / "aside")
        foreign = tmp_path / left.replace(_files._machine(), "0123abcd")  # of another machine
        foreign.mkdir()
        os.rename(tmp_path / "aside", tmp_path / left)
    written(tmp_path / "run.csv", "whole")
    assert sorted(os.listdir(tmp_path)) == sorted([foreign.name, "other.csv", "run.csv"])
    assert (tmp_path / "run.csv").read_text() == "whole"


def test_a_store_whose_replacement_was_killed_between_two_renames_is_there(tmp_path):
    with writing(tmp_path / "gone") as process:
        pass
    dead = tmp_path / f".dynsim-{_files._machine()}-{process.pid}-abcdefgh"
    for name in (_files._REPLACED, "run.zarr"):
        (dead / name).mkdir(parents=True)
        (dead / name / "data").write_text(name)
    written(tmp_path / "other.csv", "another")
    assert sorted(os.listdir(tmp_path)) == ["other.csv", "run.zarr"]
    assert (tmp_path / "run.zarr" / "data").read_text() == "run.zarr"
