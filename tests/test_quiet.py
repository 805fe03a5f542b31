"""Imports without garbage collection."""

import contextlib
import gc

import pytest

from vae_cf_tf.cli.quiet import without_garbage_collection


@pytest.mark.parametrize("enabled", [True, False])
def test_collection_is_as_before_also_after_an_error(enabled):
    try:
        (gc.enable if enabled else gc.disable)()
        with contextlib.suppress(ImportError), without_garbage_collection():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
