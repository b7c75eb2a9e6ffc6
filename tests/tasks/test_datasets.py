"""Hugging Face datasets: saved folders, folders of files, and the hub when it cannot be reached."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from wrongturn.errors import WrongturnError
from wrongturn.tasks import read_problems
from wrongturn.tasks.records import rows

pytestmark = [pytest.mark.extras, pytest.mark.filterwarnings("ignore")]

ROWS = [{"question": "2 + 2?", "answer": 4}, {"question": "2 + 3?", "answer": 5}]


def test_saved_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    one = datasets.Dataset.from_list(ROWS)
    one.save_to_disk(tmp_path / "one")
    assert [(p.id, p.reference) for p in read_problems(tmp_path / "one")] == [("one/1", "4"), ("one/2", "5")]
    datasets.DatasetDict({"train": one, "test": one.select([1])}).save_to_disk(tmp_path / "two")
    assert [p.reference for p in read_problems(tmp_path / "two")] == ["5"]
    datasets.DatasetDict({"a": one, "b": one}).save_to_disk(tmp_path / "three")
    with pytest.raises(WrongturnError, match=r"which split\? \(it has a, b: add @SPLIT\)"):
        read_problems(tmp_path / "three")


def test_a_folder_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.chdir(tmp_path)
    assert [p.prompt for p in read_problems("data")] == ["2 + 2?", "2 + 3?"]
    assert [p.prompt for p in read_problems("hf:data")] == ["2 + 2?", "2 + 3?"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(WrongturnError, match=r"^empty: "):
        read_problems("empty")


def test_the_hub_out_of_reach_is_one_line(tmp_path: Path) -> None:
    code = (
        "from wrongturn.errors import WrongturnError\nfrom wrongturn.tasks import read_problems\n"
        "try: read_problems('gsm8k')\nexcept WrongturnError as problem: print(repr(str(problem)))"
    )
    env = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PATH": ""}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120)
    assert said.stdout.startswith('"hf:openai/gsm8k/main@test: ') or said.stdout.startswith("'hf:openai/gsm8k")
    assert "\\n" not in said.stdout


@pytest.mark.parametrize("spec", ["hf:", "hf:/x", "hf:a/", "hf:a//b"])
def test_specs_that_name_nothing(spec: str) -> None:
    with pytest.raises(WrongturnError, match="expected hf:NAME"):
        rows(spec)
