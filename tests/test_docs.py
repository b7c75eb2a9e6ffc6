"""What the documentation shows is run: its Python, its commands, its links."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def run(args: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, *args], cwd=cwd, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the quick start has been followed, with fewer problems."""
    folder = tmp_path_factory.mktemp("docs")
    run(["-m", "wrongturn", "run", "-n", "3", "--json"], folder)
    return folder


def python_blocks() -> list[object]:
    blocks = [
        (page, block) for page in PAGES for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    ]
    return [pytest.param(block, id=f"{page.stem}-{i}") for i, (page, block) in enumerate(blocks)]


@pytest.mark.parametrize("block", python_blocks())
def test_python_runs(block: str, folder: Path) -> None:
    run(["-W", "error", "-c", block], folder)


ELSEWHERE = re.compile(r"problems.jsonl|URL|import$|lab train|lab anatomy$|rescue|route|--policy$")
"""Commands that need a server, another harness's logs, a rescued run or an hour; their own tests give them."""


def commands() -> list[str]:
    """Inline commands of the README, the quick start apart (tests/test_install.py gives that one in full)."""
    return sorted(
        command
        for command in set(re.findall(r"`(wrongturn [^`]*)`", (ROOT / "README.md").read_text()))
        if not ELSEWHERE.search(command)
    )


def test_there_are_commands() -> None:
    assert len(commands()) >= 3


@pytest.mark.parametrize("command", commands())
def test_commands_run(command: str, folder: Path) -> None:
    words = shlex.split(command.replace("TRACE", "G15_2,4/0/0/sample/0"))[1:]
    if words[0] == "run":
        words += ["-n", "2", "--out", "other"]
    run(["-m", "wrongturn", *words], folder)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


def test_strategies_are_documented() -> None:
    from wrongturn import strategies

    page = (ROOT / "docs" / "strategies.md").read_text()
    assert all(f"`{name}`" in page for name in strategies.names())


def test_error_classes_are_documented() -> None:
    from wrongturn.tasks.graphs import ERRORS

    page = (ROOT / "docs" / "lab.md").read_text()
    assert all(f"`{name}`" in page for name in ERRORS)


def test_dependencies_are_documented() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *(d for extra in project["optional-dependencies"].values() for d in extra)]
    page = (ROOT / "docs" / "dependencies.md").read_text()
    assert all(re.split(r"[<>=\[]", name)[0] in page for name in listed)


@pytest.mark.extras
def test_the_served_example_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "collect.md").read_text()
    serve, probe, collect = re.findall(r"^(wrongturn .*(?:serve|127\.0\.0\.1).*)$", page, re.MULTILINE)
    words = [sys.executable, "-m", *shlex.split(serve.removesuffix("&")), "--port", "0"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            port = re.search(r":(\d+)/v1", server.stdout.readline())
            assert port
            for command in (probe, collect):
                run(["-m", *shlex.split(command.replace(":8000/", f":{port[1]}/")), "--json"], tmp_path)
        finally:
            server.terminate()
    assert (tmp_path / "runs" / "served" / "run.json").exists()
