"""How the C library of a command's process hands out memory."""

import contextlib
import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Has glibc keep up to 2 GiB of freed memory for what is asked for next, in place of giving it back to the system.

    TensorFlow frees a step's tensors and asks for them again in the next step, and the system clears each page that it
    gives. Blocks of 32 MiB or more, glibc's largest limit, are given back as before, so that the peak does not grow.
    Nothing happens with another C library, or where environment variables set up malloc already.
    """
    if "GLIBC_TUNABLES" in os.environ or any(name.startswith("MALLOC_") for name in os.environ):
        return
    with contextlib.suppress(OSError, AttributeError):  # AttributeError: not glibc
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, 2**25)
        library.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(_TOP_PAD, 2**26)
