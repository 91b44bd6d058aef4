"""What a process that runs a stranger's program may use of the machine: it takes it from itself, for good.

Systems without the `resource` module (Windows) have only the time limit of whoever waits for the answer; macOS knows
the limit of memory, but does not hold to it. Not here: what is run then.
"""

from __future__ import annotations

import contextlib
import signal

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_confined = False


def confine(*, memory_bytes: int, files: int = 16, processes: bool = False) -> None:
    """Take away memory beyond a bound, writing of files, dumps, many open files, and processes and threads.

    To be called when everything is imported. files: that may be open at once. processes: whether it may start some.
    """
    global _confined
    _confined = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it decides when it ends, also at Ctrl-C
    if resource is None:
        return
    _lower(resource.RLIMIT_AS, memory_bytes)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, files)
    if not processes:
        _lower(resource.RLIMIT_NPROC, 0)


def confined() -> bool:
    """Whether this process has done so, and so may run a stranger's program itself."""
    return _confined


def end_after(seconds: float) -> None:
    """End this process when so much time has gone by, whatever it does then; 0: no longer.

    For a process whose parent was killed: nobody else would end it while it runs a loop.
    """
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _lower(which: int, most: int) -> None:
    _, hard = resource.getrlimit(which)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    with contextlib.suppress(OSError, ValueError):  # a system that knows a limit by name only
        resource.setrlimit(which, (most, most))
