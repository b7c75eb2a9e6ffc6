"""From nothing to a model of one's own, by the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch

pytest.importorskip("torch")


def asked(*args: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wrongturn", *map(str, args), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == code, done.stderr
    return done


def wrongturn(*args: str | Path) -> dict[str, object]:
    return json.loads(asked(*args).stdout)


def test_train_export_and_run(tmp_path: Path) -> None:
    small = ["--layers", "1", "--heads", "2", "--width", "32", "--ffn", "32", "--threads", "1"]
    told = wrongturn("lab", "train", "graph_search", "--out", tmp_path / "lab", "--tokens", "40k", *small)
    assert told["tokens"] >= 40_000  # type: ignore[operator]
    export = Path(str(told["export"]))
    assert {"config.json", "graph.onnx", "model.safetensors", "tokenizer.json"} <= {p.name for p in export.iterdir()}
    summary = wrongturn(
        "run",
        "--engine",
        f"embedded:{export}",
        "-n",
        "2",
        "--samples",
        "1",
        "--max-tokens",
        "20",
        "--out",
        tmp_path / "run",
    )
    assert summary["problems"] == 6


def test_a_file_where_a_folder_belongs_is_named(tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("")
    done = asked("lab", "train", "graph_search", "--tokens", "1k", "--out", tmp_path / "afile", code=2)
    assert done.stderr.strip().startswith("wrongturn: ")
    assert "afile: File exists" in done.stderr
    assert "Traceback" not in done.stderr
