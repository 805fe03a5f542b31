"""Data flows one way: the import arrows that hold it so."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LEAVES = ("encoders", "decoders", "priors", "likelihoods", "schedules", "optimizers")
TENSORFLOW = ("tensorflow", "keras", "tensorflow_probability")


def imported(path: Path) -> set[str]:
    """Every module that a file names in an import, at any depth; `from a import b` names a and a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(names: set[str], *packages: str) -> set[str]:
    return {name for name in names if any(name == p or name.startswith(p + ".") for p in packages)}


def files(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("path", files("vae_cf_tf"), ids=lambda p: p.stem)
def test_the_library_imports_neither_trainers_nor_export(path):
    assert not within(imported(path), "trainers", "export")


@pytest.mark.parametrize("path", files("vae_cf_tf/data"), ids=lambda p: p.stem)
def test_data_knows_no_models_and_no_tensorflow(path):
    assert not within(imported(path), *TENSORFLOW)
    allowed = {"vae_cf_tf", "vae_cf_tf.config", "vae_cf_tf.errors", "vae_cf_tf.files", "vae_cf_tf.say"}
    allowed |= {"vae_cf_tf.data"}
    modules = {name for name in within(imported(path), "vae_cf_tf") if not name.startswith("vae_cf_tf.data.")}
    assert {name for name in modules if name.rsplit(".", 1)[0] not in allowed} <= allowed


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_do_not_import_each_other(leaf):
    others = [f"vae_cf_tf.{other}" for other in (*LEAVES, "models") if other != leaf]
    assert not within(imported(ROOT / "vae_cf_tf" / f"{leaf}.py"), *others)


@pytest.mark.parametrize("path", files("export"), ids=lambda p: p.stem)
def test_export_never_imports_trainers(path):
    assert not within(imported(path), "trainers")


def test_flags_are_read_in_commands_only():
    readers = {
        p.relative_to(ROOT).as_posix()
        for p in files("vae_cf_tf") + files("trainers") + files("export")
        if "absl.flags" in imported(p)
    }
    assert all(name.startswith(("trainers/", "export/")) or name == "vae_cf_tf/commands.py" for name in readers), (
        readers
    )
