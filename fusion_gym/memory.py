"""Memory reuse: keeps the C library from handing freed tensors back to the kernel.

glibc maps and unmaps every block above 128 KiB anew, so each fresh tensor of that size pays for page faults;
raising two thresholds (mallopt(3)) lets the blocks be reused.
"""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP = 1 << 30  # bytes


def keep_freed_memory() -> bool:
    """Raises glibc's mmap and trim thresholds to 1 GiB for this process, where the user has not set them.

    Returns:
        Whether it took effect; elsewhere than on Linux with glibc nothing happens.
    """
    if sys.platform != "linux" or "MALLOC_MMAP_THRESHOLD_" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _KEEP) and mallopt(_M_TRIM_THRESHOLD, _KEEP))
