"""How the C library of a command's process hands out memory."""

import contextlib
import ctypes
import os
import re

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
_SET_BY_USER = re.compile(r"MALLOC_(TRIM_THRESHOLD|TOP_PAD|MMAP_THRESHOLD|MMAP_MAX)_=|GLIBC_TUNABLES=.*glibc\.malloc\.")


def keep_freed_memory() -> None:
    """Has glibc keep freed memory for what is asked for next, in place of giving it back to the system.

    TensorFlow frees a step's tensors and asks for them again in the next step, and the system clears each page that it
    gives. Blocks of 32 MiB or more, glibc's largest limit, are given back as before. So the peak of a process grows by
    little (docs/performance.md), while between its peaks it holds more memory than it uses.

    Nothing happens with another C library, or where environment variables set this already.
    """
    if any(_SET_BY_USER.match(f"{name}={value}") for name, value in os.environ.items()):
        return
    with contextlib.suppress(OSError, AttributeError, TypeError):  # no mallopt, or no C library to ask
        mallopt = ctypes.CDLL(None).mallopt
        if mallopt(_MMAP_THRESHOLD, 2**25):
            mallopt(_TRIM_THRESHOLD, 2**31 - 1)
            mallopt(_TOP_PAD, 2**26)
