"""What this machine has, and what "auto" in a spec means on it, with the reason. Without importing torch.

The page explains these choices before a worker exists; the engine follows the very same ones.
"""

import json
import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import psutil

from studio.errors import StudioError
from studio.home import home, write_atomically
from studio.specs import TrainSpec, ability

GIB = 1024**3
ONLINE = ("grpo", "rloo")
"""Stages whose step cannot be divided when memory runs out: answers to a question are compared in one batch."""
WORTHWHILE = 1.1
"""Below this gain bf16 is left alone: it rounds more."""
SPINS = 4000
"""Of a worker, which has the machine to itself most of the time. Waking a thread takes longer than many a product: on
two cores SmolLM2-135M trained at 327 tokens/s without, 408 with half of these, 433 with them and 465 with five times as
many; beside a second run at 236, 212, 190 and 98."""
ASKED_EVERY_S = 5


@dataclass(frozen=True)
class Hardware:
    """gpu: the name of the first CUDA device, or None. bf16: whether the training device computes in bf16.

    bf16_gain: how many times faster products in bf16 are than those in fp32. Some CPUs have the instructions and are
    slower with them.
    """

    cores: int
    memory_gib: float
    gpu: str | None = None
    gpu_memory_gib: float = 0.0
    bf16: bool = False
    bf16_gain: float = 2.0

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


def detect() -> Hardware:
    """Look at this machine. CUDA_VISIBLE_DEVICES="" hides a GPU."""
    cores = usable_cores()
    memory = psutil.virtual_memory().total / GIB
    name, gpu_memory, capability = _first_gpu(os.environ.get("CUDA_VISIBLE_DEVICES"))
    if name:
        return Hardware(cores, memory, name, gpu_memory, bf16=capability >= 8.0)
    return Hardware(cores, memory, bf16=bool(_bf16_flags()), bf16_gain=measured_gain() or _likely_gain())


def free_bytes(hardware: Hardware) -> int:
    """Memory that the training device has free now; of a GPU whose driver does not say, all of it."""
    if hardware.gpu is None:
        return psutil.virtual_memory().available
    return _free_on_gpu(int(time.monotonic() / ASKED_EVERY_S)) or int(hardware.gpu_memory_gib * GIB)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_kills() -> int:
    """How many processes the system has ended so far because memory ran out; 0 where it does not count them."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def thread_environment(*, spins: int = 0) -> dict[str, str]:
    """Environment for a process that computes on this machine's cores, unless the user has set it.

    OpenMP threads that wait by spinning take whole cores away from each other as soon as anything else runs (a second
    model, a browser): measured on two busy cores, decoding was three to ten times slower than with threads that sleep.

    spins: how often GNU's library looks for work before a thread sleeps.
    """
    policy = os.environ.get("OMP_WAIT_POLICY")
    if policy is None and spins:
        return {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", str(spins))}
    return {"OMP_WAIT_POLICY": policy or "PASSIVE"}


def choices(spec: TrainSpec, hardware: Hardware) -> dict[str, Choice]:
    """Every field of the spec that may be "auto", by dotted path, with its value on this hardware."""
    gpu = hardware.gpu is not None
    half, why_half = _half(hardware)
    if asked := next((each for each in (spec.model.dtype, spec.training.precision) if each in ("bf16", "fp16")), None):
        half, why_half = asked, "as weights and arithmetic go together, and one of them is set in the spec"
    checkpointing = Choice("off", "it costs about 30 % of the time, and goes on by itself where memory runs out")
    if not ability(spec.method).checkpointing:
        checkpointing = Choice("off", "this method cannot recompute activations")
    elif gpu and spec.stage.kind in ONLINE:
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


def _half(hardware: Hardware) -> tuple[str, str]:
    """The precision that computes fastest, and why."""
    device = "GPU" if hardware.gpu else "CPU"
    if hardware.bf16 and hardware.bf16_gain > WORTHWHILE:
        return "bf16", f"this {device} computes in bf16: half the memory, and faster"
    if hardware.gpu:
        return "fp16", "this GPU is older than bf16, so fp16 is used"
    if hardware.bf16:
        return "fp32", "products in bf16 are slower on this CPU than those in fp32"
    return "fp32", "this CPU has no bf16 arithmetic, and emulating it is slow"


def measured_gain() -> float | None:
    """What keep_gain kept on this very CPU, or None."""
    try:
        kept = json.loads(_kept().read_text(encoding="utf-8"))
        return float(kept["bf16_gain"]) if kept["cpu"] == _cpu_name() else None
    except (OSError, ValueError, LookupError, TypeError, StudioError):
        return None


def keep_gain(gain: float) -> None:
    """Keep a measured bf16_gain for this machine's next processes."""
    write_atomically(_kept(), json.dumps({"cpu": _cpu_name(), "bf16_gain": round(gain, 3)}))


def _kept() -> Path:
    return home().cache / "machine.json"


@cache
def _first_gpu(visible: str | None) -> tuple[str | None, float, float]:
    """(name, GiB, compute capability) of the first visible CUDA device, asked once of the driver's own tool."""
    tool = shutil.which("nvidia-smi")
    if not tool or visible == "":
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


def _bf16_flags() -> set[str]:
    """The instructions for bf16 that this CPU has."""
    if platform.machine() == "arm64" and platform.system() == "Darwin":
        return {"bf16"}
    return {"avx512_bf16", "amx_bf16", "bf16"} & set(_cpuinfo().split())


def _likely_gain() -> float:
    """Until it is measured. Intel's avx512_bf16 without AMX was seen at half the speed of fp32, AMD's at twice."""
    only_avx = _bf16_flags() == {"avx512_bf16"} and "GenuineIntel" in _cpuinfo()
    return 0.5 if only_avx else 2.0


def _cpu_name() -> str:
    lines = (line.partition(":") for line in _cpuinfo().splitlines())
    names = [value.strip() for name, _, value in lines if name.strip() in ("model name", "CPU part")]
    return f"{names[0] if names else platform.processor()} x {usable_cores()}"


@cache
def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
