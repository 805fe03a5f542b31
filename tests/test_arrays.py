"""Arrays in .npz files: what was written comes back, or the damage is noticed."""

import io
import zipfile

import numpy as np
import pytest

from vae_cf_tf import arrays

VALUES = {"counts": np.arange(12, dtype=np.int32), "rows": np.ones((2, 3), np.float32), "text": np.array("süß")}


def read(path):
    with arrays.opened(path) as found:
        return {name: (values.dtype.str, values.shape, values.tobytes()) for name, values in found.items()}


@pytest.fixture
def path(tmp_path):
    np.savez(tmp_path / "a.npz", **VALUES)
    return tmp_path / "a.npz"


def test_what_was_written_is_read(path):
    assert read(path) == {name: (v.dtype.str, v.shape, v.tobytes()) for name, v in VALUES.items()}
    with arrays.opened(path) as found:
        assert len(found) == 3
        assert "none" not in found


def test_no_changed_byte_changes_what_is_read(path):
    """Of NumPy's own reader this is not so: it stops where a changed shape tells it to, before the checksum."""
    whole, wanted, told = path.read_bytes(), read(path), 0
    for at in range(len(whole)):
        for bit in (0, 1, 3, 6):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])
            try:
                found = read(path)
            except (OSError, ValueError):
                told += 1
                continue
            assert found == wanted, (at, bit)
    assert told > len(whole)  # times of files and the like are what is left


@pytest.mark.parametrize("shape", [b"(10,), ", b"(99,), "])
def test_another_shape_is_noticed(path, shape):
    content = path.read_bytes()
    path.write_bytes(content.replace(b"(12,), ", shape, 1))
    with arrays.opened(path) as found, pytest.raises(ValueError, match=r".+"):
        _ = found["counts"]


def test_any_piece_that_is_lost_is_noticed(path):
    whole, wanted = path.read_bytes(), read(path)
    for at in range(0, len(whole), 3):
        for length in (1, 2, 30):
            path.write_bytes(whole[:at] + whole[at + length :])
            try:
                assert read(path) == wanted
            except (OSError, ValueError):
                continue


def test_what_numpy_writes_otherwise_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **VALUES)
    with pytest.raises(ValueError, match="is not as it was written"):
        read(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        file = io.BytesIO()
        np.lib.format.write_array(file, VALUES["counts"])
        archive.writestr("counts.npy", file.getvalue() + b"more")
    with pytest.raises(ValueError, match="longer than its array"):
        read(tmp_path / "b.npz")
