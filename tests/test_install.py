"""The README's first command, as a newcomer gives it: in a fresh copy of what is committed, timed and weighed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.install


def readme_commands() -> list[str]:
    return re.findall(r"```sh\n(.*?)\n```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_readme_has_two_one_line_commands() -> None:
    commands = readme_commands()
    assert len(commands) == 2
    assert all("\n" not in command for command in commands)
    assert commands[1] == "make test"


@pytest.mark.timeout(600)
def test_first_command_in_an_empty_environment(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (ROOT / name).exists():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            (clone / name).write_bytes((ROOT / name).read_bytes())
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        readme_commands()[0], shell=True, cwd=clone, env=env, capture_output=True, text=True, timeout=580
    )
    assert done.returncode == 0, done.stderr
    assert "Report: wrongturn-run/report.html" in done.stdout
    report = clone / "wrongturn-run" / "report.html"
    assert 50_000 < report.stat().st_size <= 10 * 2**20
    installed = {p.name for p in next((clone / ".venv" / "lib").glob("python3*/site-packages")).iterdir()}
    assert not {"torch", "transformers", "onnx"} & installed
    size = sum(p.stat().st_size for p in (clone / ".venv").rglob("*") if p.is_file() and not p.is_symlink())
    assert size <= 350 * 2**20, f"{size / 2**20:.0f} MiB"
