import errno

import keras
import numpy as np
import pytest

from vae_cf_tf.errors import UserError
from vae_cf_tf.runs import checkpoints


@pytest.fixture
def variables():
    return {"a/kernel": keras.Variable(np.arange(6.0).reshape(2, 3)), "b": keras.Variable(np.float32(2))}


@pytest.fixture
def path(tmp_path, variables):
    checkpoints.save(tmp_path / "c.npz", variables, {"epoch": 4, "name": "süß"})
    return tmp_path / "c.npz"


def test_values_and_meta_come_back(path, variables):
    for v in variables.values():
        v.assign(v * 0)
    assert checkpoints.load(path, variables) == {"epoch": 4, "name": "süß"}
    np.testing.assert_array_equal(variables["a/kernel"], np.arange(6.0).reshape(2, 3))
    assert checkpoints.read_meta(path)["epoch"] == 4


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"PK" + b[2:90], None])
def test_a_damaged_file_is_one_line(path, variables, damage):
    content = path.read_bytes()
    if damage is None:  # one flipped bit within the values
        at = content.index(np.float64(5).tobytes())
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    else:
        path.write_bytes(damage(content))
    with pytest.raises(UserError, match=r"checkpoint .*c\.npz is damaged"):
        checkpoints.load(path, variables)


def test_a_missing_file_and_another_models_file_are_named(path, variables, tmp_path):
    with pytest.raises(UserError, match="is missing"):
        checkpoints.load(tmp_path / "none.npz", variables)
    with pytest.raises(UserError, match=r"has no c of shape \(2,\)"):
        checkpoints.load(path, {"c": keras.Variable([1.0, 2.0])})


def test_what_is_no_checkpoint_or_one_of_another_version_is_one_line(path, variables, tmp_path):
    with pytest.raises(UserError, match=r"c\.npz has no rows: another version"):
        checkpoints.load(path, variables)["rows"]
    assert checkpoints.read_meta(path).get("rows") is None
    np.save(tmp_path / "array.npy", np.arange(3))
    np.savez(tmp_path / "list.npz", meta="[4]")
    np.savez(tmp_path / "other.npz", values=np.arange(3))
    for name in ("array.npy", "list.npz", "other.npz"):
        with pytest.raises(UserError, match=f"{name} is damaged"):
            checkpoints.read_meta(tmp_path / name)


def test_a_failed_write_leaves_the_old_file_and_no_other(path, variables, monkeypatch):
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(path, variables, {})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["c.npz"]


def test_a_digest_is_that_of_the_variables(path, variables):
    """Two runs of equal weights have one identity, whatever memory their processes took."""
    first = checkpoints.digest(path)
    checkpoints.save(path, variables, {"epoch": 4, "peak_rss_mb": 812.5})
    assert checkpoints.digest(path) == first
    variables["b"].assign(3.0)
    checkpoints.save(path, variables, {"epoch": 4})
    assert checkpoints.digest(path) != first
