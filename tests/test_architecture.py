"""The way of the data, held by the imports; and what no file may know."""

import ast
import re
from pathlib import Path

import pytest

from vae_cf_tf.registries import BASELINES, ITEM_ITEM, LIKELIHOODS, PRIORS

ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("vae_cf_tf", "trainers", "export")
    for path in sorted((ROOT / package).rglob("*.py"))
}
NOT_A_PART = {"export.client.__main__": {"vamp"}}
"""Texts that are a part's name by chance: here that of the model which the client asks unless it is told another."""
WITHOUT_TENSORFLOW = {"settings", "data", "linear", "cli", "registry", "registries", "errors", "files", "say"}
WITHOUT_TENSORFLOW |= {"arrays", "engines", "forecast", "threads"}
PLAIN = {"arrays", "errors", "files", "say", "threads"}
MAY_IMPORT = {
    # the library, in the order of the data
    "vae_cf_tf": {"data", "errors", "evaluation", "models", "recommender", "settings", "training", "version"},
    "version": set(),
    "errors": set(),
    "say": set(),
    "arrays": set(),
    "threads": set(),
    "files": {"errors"},
    "machine": set(),
    "registry": {"errors"},
    "registries": {"registry"},
    "settings": {"registries", "registry"} | PLAIN,
    "cli": {"settings"} | PLAIN,
    "data": {"settings"} | PLAIN,
    "forecast": {"registries", "settings"},
    "linear": {"settings"} | PLAIN,
    "engines": {"data", "settings"} | PLAIN,
    "models": {"linear", "registries", "settings"} | PLAIN,
    "evaluation": {"data", "models", "registries"} | PLAIN,
    "runs": {"data", "evaluation", "models", "registries", "settings"} | PLAIN,
    "training": {"data", "evaluation", "linear", "machine", "models", "runs", "settings"} | PLAIN,
    "saving": {"models", "registries", "training"},
    # the commands
    "export": {"cli", "data", "engines", "evaluation", "machine", "models", "registries", "runs", "settings", "version"}
    | PLAIN,
    "trainers": {
        *("cli", "data", "evaluation", "linear", "machine", "models", "registries", "runs", "settings", "training"),
        *("engines", "export", "forecast", "version"),
    }
    | PLAIN,
    # Python's way to all of it
    "recommender": {"cli", "data", "evaluation", "export", "runs", "settings", "trainers", "training"} | PLAIN,
}


def room(module: str) -> str:
    """The part of the house that a module is in: a folder or a file of the library, or a package of commands."""
    package, *rest = module.split(".")
    return rest[0] if package == "vae_cf_tf" and rest else package


def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text())


def imported(name: str) -> dict[str, ast.AST]:
    """Every module that a file names in an import or a LazyModule, at any depth."""
    found: dict[str, ast.AST] = {}
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name: node for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {module if module in FILES else node.module: node for module in inner}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "LazyModule":
            found[node.args[0].value] = node
    return found


def test_every_room_imports_what_lies_before_it_only():
    assert {room(name) for name in FILES} == set(MAY_IMPORT)
    for name in FILES:
        for module in imported(name):
            if module in FILES and room(module) != room(name):
                assert room(module) in MAY_IMPORT[room(name)], f"{name} imports {module}"


def test_no_imports_go_round_in_a_circle():
    arrows = {name: {module for module in imported(name) if module in FILES} for name in FILES}
    while leaves := {name for name, targets in arrows.items() if not targets}:
        arrows = {name: targets - leaves for name, targets in arrows.items() if name not in leaves}
    assert not arrows


@pytest.mark.parametrize("name", FILES)
def test_modules_are_imported_at_the_top(name):
    """To be quick is no reason: a LazyModule stands at the top as well."""
    inside = [
        inner
        for outer in ast.walk(tree(name))
        if isinstance(outer, ast.FunctionDef)
        for inner in ast.walk(outer)
        if isinstance(inner, ast.Import | ast.ImportFrom)
    ]
    assert not inside or name == "vae_cf_tf.cli.quiet"


def test_data_settings_and_commands_need_no_tensorflow():
    for name in FILES:
        modules = {module.split(".")[0] for module in imported(name)}
        if room(name) in WITHOUT_TENSORFLOW and name != "vae_cf_tf.cli.quiet":
            assert not modules & {"tensorflow", "keras", "tensorflow_probability"}, name


@pytest.mark.parametrize("name", FILES)
def test_every_tf_function_says_whether_autograph_converts_it(name):
    """Conversion took a third of a small run, for functions that have no Python control flow on tensors."""
    nodes = list(ast.walk(tree(name)))
    functions = [node for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node) == "tf.function"]
    calls = [node for node in nodes if isinstance(node, ast.Call) and node.func in functions]
    says = [call.func for call in calls if "autograph" in {keyword.arg for keyword in call.keywords}]
    assert [function.lineno for function in functions if function not in says] == []


def test_flags_are_read_in_commands_only():
    readers = {room(name) for name in FILES if "absl.flags" in imported(name) or "absl" in imported(name)}
    assert readers <= {"cli", "trainers", "export"}


def test_keras_private_names_are_used_in_one_file():
    private = re.compile(r"\._(flatten_layers|trainable_variables|non_trainable_variables|layers|tracker)\b")
    assert {name for name, path in FILES.items() if private.search(path.read_text())} == {"vae_cf_tf.models.tree"}


def test_no_layer_is_told_by_its_width_or_its_name():
    width = re.compile(r"(input_dim|units|output_dim|shape\[-?\d\])\s*(==|>=|>|<|<=)\s*[\w.]*items")
    for name, path in FILES.items():
        if "numpy_reference" in name:  # an independent reading of the variables of one model
            continue
        text = path.read_text()
        assert not width.search(text), name
        assert not re.search(r"""["'][\w/]*(kernel|bias)["']\s*(==|in\b)|endswith\(["'](/?kernel|/?bias)""", text), name
        assert not re.search(r"""==\s*["'][\w/]+/(kernel|bias)["']""", text), name


def own_files(registry) -> set[str]:
    return {part.partition(":")[0] for part in registry._parts.values() if isinstance(part, str)}


@pytest.mark.parametrize("registry", [PRIORS, LIKELIHOODS, BASELINES, ITEM_ITEM], ids=lambda r: r.family)
def test_a_part_is_known_to_its_own_file_and_to_the_registry_only(registry):
    for name in FILES.keys() - own_files(registry) - {"vae_cf_tf.registries"}:
        assert not own_files(registry) & imported(name).keys(), name
        assert not set(registry.names()) & _texts(name) - NOT_A_PART.get(name, set()), name


def _texts(name: str) -> set[str]:
    """The string constants of a file, but for names that it gives to layers and for documentation."""
    nodes = list(ast.walk(tree(name)))
    names = {id(node.value) for node in nodes if isinstance(node, ast.keyword) and node.arg == "name"}
    constants = [node for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return {node.value for node in constants if id(node) not in names}
