"""How much memory weights need, read from file headers, against what is free. Without loading anything."""

import ctypes
import json
import struct
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import torch

_MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of glibc's malloc.h."""
_OWN_PAGES = 256 * 1024
"""Bytes. With four times as much the heap lost 100 MiB more to holes once a pass's tensors fell below it; smaller costs
time where the large tensors of a pass are not used again (studio.engine.fast.arena)."""
MARGIN = 1.4
"""Weights times this must fit: activations, the key-value cache and the loader's own buffers come on top."""


def parameter_count(folder: Path) -> int:
    """Parameters in the safetensors files of a folder."""
    return sum(_parameters(path) for path in folder.glob("*.safetensors"))


def fits(folder: Path, bytes_per_parameter: float) -> bool:
    """Whether the model can be held at this precision beside what runs now, with a margin."""
    return parameter_count(folder) * bytes_per_parameter * MARGIN < free_bytes()


def free_bytes() -> int:
    """Free memory of the first GPU, else of the machine."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info(0)[0]
    return psutil.virtual_memory().available


def peak_gib() -> float:
    """The most memory this process has held since `forget_peak`: on the GPU where there is one, else resident."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated(0) / 1024**3
    if _STATUS.is_file():
        (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024**2
    try:
        import resource
    except ImportError:  # Windows
        return psutil.Process().memory_info().peak_wset / 1024**3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1024**3


def held_gib() -> float:
    """The memory that this process holds now."""
    if torch.cuda.is_available():
        return torch.cuda.memory_allocated(0) / 1024**3
    return psutil.Process().memory_info().rss / 1024**3


def keep_heap_small() -> None:
    """Give back what loading left in glibc's heap, and let large tensors have pages of their own from now on.

    Left alone, the heap grows with the largest tensor that was ever freed, and keeps what lies below one that is in
    use: training held a tenth more. Elsewhere than on glibc nothing is done.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim"):
        libc.mallopt(_MMAP_THRESHOLD, _OWN_PAGES)
        libc.malloc_trim(0)


def forget_peak() -> None:
    """Measure the peak anew from here, where the system can."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats(0)
    else:
        with suppress(OSError):  # Linux alone has it, and a container may forbid it
            _RESET.write_text("5")


_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _parameters(path: Path) -> int:
    """Source: the safetensors format: an 8-byte little-endian length, then a JSON header with every shape."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    total = 0
    for name, entry in header.items():
        if name != "__metadata__":
            count = 1
            for size in entry["shape"]:
                count *= size
            total += count
    return total
