"""Freed memory stays with a command's process, as far as glibc allows."""

import platform
import subprocess
import sys

import pytest
from typed import ROOT

FAULTS = """
import ctypes, resource, sys
from vae_cf_tf.cli import allocation
if sys.argv[1] == "kept":
    allocation.keep_freed_memory()
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def fill():
    blocks = [c.malloc(31 * 2**20) for _ in range(8)]
    for block in blocks:
        ctypes.memset(block, 1, 31 * 2**20)
    for block in blocks:
        c.free(block)

fill(), fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how, **environment):
    ended = subprocess.run(
        [sys.executable, "-c", FAULTS, how], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return int(ended.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_that_was_freed_is_handed_out_again_without_page_faults():
    pages = 4 * 8 * 31 * 2**20 // 4096
    assert page_faults("given back") > pages / 2
    assert page_faults("kept") < pages / 100
    assert page_faults("kept", MALLOC_TRIM_THRESHOLD_="1000000") > pages / 2  # the user's own setting stays
