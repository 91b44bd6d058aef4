"""What the libraries may not do on their own."""

import subprocess
import sys

CODE = """
import sys, types
import studio.engine.models.load
import bitsandbytes, transformers
try:
    import kernels
except ImportError:
    print("refused")
"""


def test_no_kernel_is_fetched_from_a_hub_when_bitsandbytes_is_imported(tmp_path):
    (tmp_path / "kernels.py").write_text("def get_kernel(*_, **__): raise SystemExit('fetched code from a hub')\n")
    loaded = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{CODE}"],
        capture_output=True,
        text=True,
    )
    assert loaded.stdout.strip() == "refused" and loaded.returncode == 0, loaded.stderr[-500:]
    assert "gemm_4bit" not in loaded.stderr
