"""A run that cannot fit into the machine's memory says so before it starts."""

import numpy as np
import pytest
import scipy.sparse as sp
from conftest import ROOT

from trainers import memory_check
from vae_cf_tf.data.split import HeldOut, Split
from vae_cf_tf.errors import UserError
from vae_cf_tf.forecast import forecast
from vae_cf_tf.settings import Settings
from vae_cf_tf.settings.flagfiles import settings_in
from vae_cf_tf.settings.settings import parsed

GIB = 2**30


def split_of(items, users=1000):
    train = sp.csr_matrix((users, items), dtype=np.float32)
    nobody = HeldOut(train[:0], train[:0])
    return Split(train, nobody, nobody, [], {})


@pytest.fixture
def default():
    return Settings.of(**settings_in(ROOT / "vamp.flags"))


def test_a_small_run_starts_without_a_word(default):
    said = []
    memory_check.check(default, split_of(3_000), said.append, 8 * GIB)
    assert said == []


def test_a_large_run_that_fits_says_what_it_takes(default):
    said = []
    memory_check.check(default, split_of(80_000), said.append, 8 * GIB)
    assert said == ["This run needs about 5.8 GiB of memory, and the machine has 8.0 GiB."]


@pytest.mark.parametrize(("items", "memory"), [(1_000_000, 16), (200_000, 8), (80_000, 5)])
def test_a_run_that_cannot_fit_names_settings_that_do(default, items, memory):
    split = split_of(items)
    with pytest.raises(UserError, match=r"needs about .* GiB of memory, and the machine has") as error:
        memory_check.check(default, split, print, memory * GIB)
    flags = [word.rstrip(".") for word in str(error.value).split() if word.startswith("--")]
    assert flags
    values = dict(flag.removeprefix("--").split("=") for flag in flags)
    smaller = default.replaced(**{name: parsed(name, value) for name, value in values.items()})
    assert forecast(smaller, *split.train.shape, 0).job_peak <= memory * GIB
    memory_check.check(smaller, split, print, memory * GIB)


def test_no_advice_where_nothing_fits(default):
    with pytest.raises(UserError, match="more memory"):
        memory_check.check(default, split_of(10**6), print, GIB // 2)


def test_the_machine_has_memory():
    assert 2**28 < memory_check.machine_memory() < 2**48
