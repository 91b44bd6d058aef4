"""What this machine has, and what "auto" in a spec means on it, with the reason. Without importing torch.

The page explains these choices before a worker exists; the engine follows the very same ones.
"""

import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import psutil

from studio.specs import TrainSpec, ability

GIB = 1024**3
ASKED_EVERY_S = 5


@dataclass(frozen=True)
class Hardware:
    """gpu: the name of the first CUDA device, or None. bf16: whether the training device computes in bf16."""

    cores: int
    memory_gib: float
    gpu: str | None = None
    gpu_memory_gib: float = 0.0
    bf16: bool = False

    @property
    def device(self) -> str:
        return "cuda" if self.gpu else "cpu"

    def __str__(self) -> str:
        cpu = f"{self.cores} CPU core{'s' if self.cores != 1 else ''}, {self.memory_gib:.0f} GiB"
        return f"{self.gpu} ({self.gpu_memory_gib:.0f} GiB), {cpu}" if self.gpu else f"no GPU, {cpu}"


@dataclass(frozen=True)
class Choice:
    """What an "auto" became, and why, in one sentence."""

    value: str
    why: str


@cache
def detect() -> Hardware:
    """Look at this machine once. CUDA_VISIBLE_DEVICES="" hides a GPU."""
    cores = usable_cores()
    memory = psutil.virtual_memory().total / GIB
    name, gpu_memory, capability = _first_gpu()
    if name:
        return Hardware(cores, memory, name, gpu_memory, bf16=capability >= 8.0)
    return Hardware(cores, memory, bf16=_cpu_has_bf16())


def free_bytes(hardware: Hardware) -> int:
    """Memory that the training device has free now; of a GPU whose driver does not say, all of it."""
    if hardware.gpu is None:
        return psutil.virtual_memory().available
    return _free_on_gpu(int(time.monotonic() / ASKED_EVERY_S)) or int(hardware.gpu_memory_gib * GIB)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def thread_environment() -> dict[str, str]:
    """Environment for a process that computes on this machine's cores, unless the user has set it.

    OpenMP threads that wait by spinning take whole cores away from each other as soon as anything else runs (a second
    model, a browser): measured on two busy cores, decoding was three to ten times slower than with threads that sleep.
    """
    return {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE")}


def choices(spec: TrainSpec, hardware: Hardware) -> dict[str, Choice]:
    """Every field of the spec that may be "auto", by dotted path, with its value on this hardware."""
    gpu = hardware.gpu is not None
    half = "bf16" if hardware.bf16 else "fp32"
    if gpu and not hardware.bf16:
        half = "fp16"
    why_half = {
        "bf16": f"this {'GPU' if gpu else 'CPU'} computes in bf16: half the memory, and faster",
        "fp16": "this GPU is older than bf16, so fp16 is used",
        "fp32": "this CPU has no bf16 arithmetic, and emulating it is slow",
    }[half]
    checkpointing = Choice("off", "memory is enough on this machine, and recomputing costs about 30 % of the time")
    if not ability(spec.method).checkpointing:
        checkpointing = Choice("off", "this method cannot recompute activations")
    elif gpu:
        checkpointing = Choice("on", "saves memory on the GPU for about 30 % of the time")
    whole = spec.method.kind == "full"
    auto = {
        "model.dtype": Choice("fp32", "every weight trains, and bf16 would lose small updates")
        if whole
        else Choice(half, why_half),
        "training.precision": Choice(half, why_half),
        "training.optimizer": Choice("paged_adamw_8bit", "8-bit states that page out to memory, as in the QLoRA paper")
        if gpu
        else Choice("adamw_torch", "on a CPU 8-bit states save no time, and an adapter's are small"),
        "training.gradient_checkpointing": checkpointing,
    }
    given = {
        "model.dtype": spec.model.dtype,
        "training.precision": spec.training.precision,
        "training.optimizer": spec.training.optimizer,
        "training.gradient_checkpointing": spec.training.gradient_checkpointing,
    }
    return {
        field: choice if given[field] == "auto" else Choice(given[field], "set in the spec")
        for field, choice in auto.items()
    }


def _first_gpu() -> tuple[str | None, float, float]:
    """(name, GiB, compute capability) of the first visible CUDA device, asked of the driver's own tool."""
    tool = shutil.which("nvidia-smi")
    if not tool or os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return None, 0.0, 0.0
    query = [tool, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
        name, mib, capability = (part.strip() for part in lines[0].split(","))
        return name, float(mib) / 1024, float(capability)
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None, 0.0, 0.0


@lru_cache(maxsize=1)
def _free_on_gpu(moment: int) -> int | None:
    """Bytes. moment: changes when it is time to ask again, which takes the driver's tool a part of a second."""
    query = ["nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout.splitlines()
        return int(float(lines[0]) * 1024**2)
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None


def _cpu_has_bf16() -> bool:
    if platform.machine() == "arm64" and platform.system() == "Darwin":
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", " bf16"))
