"""The examples in docstrings run, and the documentation site finds everything that it names."""

import doctest
import importlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

import vae_cf_tf

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("vae_cf_tf", "trainers", "export")
    for path in sorted((ROOT / package).rglob("*.py"))
}
NAMES = {"tf": tf, "np": np, "keras": keras}
"""What an example may use without an import, beside what its module has."""


@pytest.mark.parametrize("name", [name for name, path in MODULES.items() if ">>>" in path.read_text()])
def test_examples_in_docstrings_give_what_they_say(name):
    options = doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    result = doctest.testmod(importlib.import_module(name), extraglobs=NAMES, optionflags=options, verbose=False)
    assert result.attempted
    assert not result.failed


@pytest.mark.parametrize("name", sorted({*vae_cf_tf.__all__} - {"UserError", "Split"}))
def test_public_names_have_an_example(name):
    assert ">>> " in (getattr(vae_cf_tf, name).__doc__ or ""), name


def identifiers() -> list[str]:
    """What the reference page takes from docstrings."""
    return re.findall(r"^::: (\S+)", (ROOT / "docs" / "reference.md").read_text(), re.MULTILINE)


def test_the_reference_has_every_public_name():
    listed = identifiers()
    assert len(set(listed)) == len(listed)
    for name in vae_cf_tf.__all__:
        module, _, attribute = vae_cf_tf._PLACES[name].partition(":")
        thing = getattr(importlib.import_module(module), attribute)
        assert f"{thing.__module__}.{thing.__qualname__}" in listed, name


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_every_page_is_in_the_menu(page):
    assert f" {page.name}\n" in (ROOT / "mkdocs.yml").read_text()


def test_the_readme_is_short_and_has_a_picture():
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 150
    pictures = re.findall(r"<img src=\"([^\"]+)\"", text)
    assert pictures
    for picture in pictures:
        assert 0 < (ROOT / picture).stat().st_size < 60_000


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.stem
)
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name}: {link}"
