import numpy as np
import pytest

from dynsim import tokens
from dynsim._files import read_arrays, read_named_arrays


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
    from dynsim._files import written_whole

    (tmp_path / "mine.nc").mkdir()
    (tmp_path / "mine.nc" / "data").write_text("precious")
    with pytest.raises(ValueError, match="is a folder"), written_whole(tmp_path / "mine.nc"):
        pass
    assert (tmp_path / "mine.nc" / "data").read_text() == "precious"
