"""The one shared engine; torch, transformers, trl, peft and bitsandbytes are imported here and nowhere else.

Before any of them: no telemetry, no progress bars in the log, and no code fetched from a hub unasked.
"""

import logging
import os
import sys

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# bitsandbytes (0.50) downloads and runs a kernel from the hub at import wherever the package `kernels` is installed;
# a name that is None in sys.modules cannot be imported
sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)  # it warns that this failed
