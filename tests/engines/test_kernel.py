"""The signals kernel where there is no GPU: it compiles for two of them, and Triton's interpreter runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.extras, pytest.mark.torch]

COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from wrongturn.engines import _kernel

tensors = dict(nucleus_p="*fp32", tie_delta="*fp32", found="*fp32", vocab="i32", row_stride="i32", stride="constexpr")
types = dict(logits="*bf16", LANES="constexpr", CUTS="constexpr") | tensors
constants = dict(stride=1, LANES=_kernel._LANES, CUTS=_kernel._CUTS)
for capability in (80, 90):
    source = ASTSource(_kernel._measure, types, constants)
    options = dict(num_warps=_kernel._WARPS, enable_fp_fusion=True)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert made.metadata.shared < 48 * 1024
    assert made.asm["cubin"]
"""


def run(tmp_path: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    env |= {"TRITON_CACHE_DIR": str(tmp_path)} | more
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=env, timeout=280)


def test_it_compiles_for_gpus(tmp_path: Path) -> None:
    done = run(tmp_path, "-c", COMPILE)
    assert done.returncode == 0, done.stderr


def test_it_is_exact_in_the_interpreter(tmp_path: Path) -> None:
    checks = Path(__file__).with_name("interpreted_kernel.py")
    quiet = "ignore::RuntimeWarning"  # of NumPy, on rows that are no distribution: what comes of them is thrown away
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", quiet, str(checks))
    done = run(tmp_path, *command, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
