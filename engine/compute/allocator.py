"""allocator: what the C library does with memory that tensors gave back.

Elsewhere than glibc nothing happens.
https://sourceware.org/glibc/manual/latest/html_node/Malloc-Tunable-Parameters.html
"""

import ctypes
import os
from contextlib import suppress

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def prepare_allocator() -> None:
    """Have torch ask for huge pages, and glibc keep what is freed; before the weights are loaded.

    Huge pages give the products of a decode step up to 5 %. What is unmapped when it is freed
    faults in all its pages again: 64 rows of 150,000 logits to float32 take 8.4 ms so, 2.1 without.
    """
    os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # torch's allocator looks there, and nowhere else
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def give_back_freed() -> None:
    """Give the system what is free.

    glibc keeps it for the thread that allocated it: weights that others read are of no use to the
    one that packs them.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
