"""The wheel, the console command, the names of the package, and what is declared of them."""

import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import FLAGFILES, ROOT, synthetic_events
from packaging.requirements import Requirement
from typed import mistake

from trainers.command import COMMANDS, _main_module
from vae_cf_tf.data.formats import read
from vae_cf_tf.data.split import split
from vae_cf_tf.settings import SplitSettings

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel holds and nothing else of the project."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    assert wheel.name == f"vae_cf_tf-{PROJECT['version']}-py3-none-any.whl"
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def python(installed: Path, code: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    """A process that has the wheel's content, and not the checkout."""
    environment = os.environ | {"PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=installed.parent, env=environment, capture_output=True, text=True, **options)


def vae_cf(installed: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    """`vae-cf argument …`, as the script that pip makes from the entry point calls it."""
    point = (installed / f"vae_cf_tf-{PROJECT['version']}.dist-info" / "entry_points.txt").read_text()
    module, function = re.search(r"^vae-cf = (\S+):(\w+)$", point, re.MULTILINE).groups()
    code = f"import sys; sys.argv[0] = 'vae-cf'; from {module} import {function}; sys.exit({function}())"
    return python(installed, code, *arguments, **options)


def test_the_wheel_holds_the_packages_and_their_data(installed):
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    packages = ("vae_cf_tf/", "trainers/", "export/")
    wanted = {name for name in tracked if name.startswith(packages) and (ROOT / name).exists()}
    wanted.add("trainers/flags/vamp.flags")
    held = {p.relative_to(installed).as_posix() for p in installed.rglob("*") if p.is_file()}
    assert not wanted - held
    assert {name.split("/")[0] for name in held} == {
        "vae_cf_tf",
        "trainers",
        "export",
        f"vae_cf_tf-{PROJECT['version']}.dist-info",
    }
    assert (installed / "trainers/flags/vamp.flags").read_bytes() == (ROOT / "vamp.flags").read_bytes()
    assert "trainers/report/templates/page.html" in held
    assert any(name.endswith("licenses/LICENSE") for name in held)


def test_the_wheel_has_every_flagfile(installed):
    code = (
        "import json; from vae_cf_tf.settings.flagfiles import shipped, settings_in; "
        "print(json.dumps({path.stem: settings_in(path) for path in shipped()}))"
    )
    result = python(installed, code)
    assert result.returncode == 0, result.stderr
    assert set(json.loads(result.stdout)) == {path.stem for path in FLAGFILES}
    assert next(iter(json.loads(result.stdout))) == "vamp"


def test_declared_dependencies_take_the_pinned_versions():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = dict(line.split()[0].split("==") for line in lines if "==" in line)
    declared = {requirement.name: requirement for requirement in map(Requirement, PROJECT["dependencies"])}
    assert set(declared) == set(pinned)
    for name, requirement in declared.items():
        assert requirement.specifier.contains(pinned[name]), requirement
    constraints = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    for name, version in pinned.items():
        assert f"\n{name.lower()}=={version}\n" in constraints, name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_subcommand_has_a_module_that_runs(name):
    assert callable(importlib.import_module(_main_module(COMMANDS[name].module)).run)


def test_help_names_every_command(installed):
    result = vae_cf(installed, "--help")
    assert result.returncode == 0, result.stderr
    for name, command in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(command.summary)}$", result.stdout, re.MULTILINE), name
    assert vae_cf(installed).stdout == result.stdout


def test_a_misspelt_command_is_one_line_without_tensorflow(installed):
    blocked = "import sys; sys.modules['tensorflow'] = sys.modules['absl'] = None; "
    code = blocked + "sys.argv[0] = 'vae-cf'; from trainers.command import run; sys.exit(run())"
    mistake(python(installed, code, "recomend"), "There is no command 'recomend'.", "Did you mean vae-cf recommend?")


def test_a_subcommand_has_its_own_flags_and_usage(installed):
    result = vae_cf(installed, "train", "--help")
    assert result.returncode == 0, result.stderr
    assert "Usage: vae-cf train [--NAME=VALUE …]" in result.stdout
    assert "--latent_dim=N" in result.stdout
    mistake(vae_cf(installed, "train", "--no_such_flag=1"), "There is no flag --no_such_flag")


def test_prepare_writes_the_split_that_training_would_make(installed, tmp_path):
    events = synthetic_events(tmp_path)
    result = vae_cf(
        installed, "prepare", f"--data={events}", f"--out={tmp_path / 'out'}", "--heldout_users=20", "--engine=memory"
    )
    assert result.returncode == 0, result.stderr
    expected = split(read(str(events)), SplitSettings(heldout_users=20))
    prepared = read(str(tmp_path / "out"))
    assert prepared.fingerprint() == expected.fingerprint()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["fingerprint"] == expected.fingerprint()
    assert manifest["items"] == len(expected.item_ids)
    halves = [getattr(part, half) for part in (expected.validation, expected.test) for half in ("fold_in", "target")]
    assert manifest["interactions"] == expected.train.nnz + sum(half.nnz for half in halves)
    assert manifest["users"] == expected.train.shape[0] + 40
    assert manifest["schema_version"] == 3
    assert manifest["protocol"]["heldout_users"] == 20
    assert {p.name for p in tmp_path.iterdir()} == {"events.csv", "out"}

    again = vae_cf(installed, "prepare", f"--data={events}", f"--out={tmp_path / 'out'}")
    mistake(again, "exists and is not empty")
    split_already = vae_cf(installed, "prepare", f"--data={tmp_path / 'out'}", f"--out={tmp_path / 'other'}")
    mistake(split_already, "is split already")


def test_importing_the_package_needs_no_tensorflow_and_little_time(installed):
    code = (
        "import sys, time; start = time.perf_counter(); import vae_cf_tf; "
        "assert set(vae_cf_tf.__all__) <= set(dir(vae_cf_tf)); "
        "seconds = time.perf_counter() - start; heavy = {'tensorflow', 'keras', 'pandas', 'numpy'} & set(sys.modules); "
        "print(seconds, heavy); vae_cf_tf.Settings.of(latent='flat'); assert 'tensorflow' not in sys.modules; "
        "vae_cf_tf.load, vae_cf_tf.split, vae_cf_tf.Interactions; assert 'tensorflow' not in sys.modules"
    )
    result = python(installed, code)
    assert result.returncode == 0, result.stderr
    seconds, heavy = result.stdout.split(" ", 1)
    assert float(seconds) < 0.5
    assert heavy.strip() == "set()"


def test_public_names_are_those_of_their_modules():
    import vae_cf_tf

    for name in vae_cf_tf.__all__:
        assert getattr(vae_cf_tf, name) is not None, name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = vae_cf_tf.no_such_name
    assert vae_cf_tf.__version__ == PROJECT["version"]
