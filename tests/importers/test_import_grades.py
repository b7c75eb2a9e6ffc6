"""Which metric grades a file: one for all rows, or none."""

import json
from pathlib import Path

import pytest

from wrongturn.errors import WrongturnError
from wrongturn.importers import load
from wrongturn.store import Run

TURNS = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def grades(tmp_path, format, rows, **options):
    """The grade of each trace, the metrics that gave them, and what was said."""
    tmp_path.mkdir(exist_ok=True)
    path, told = tmp_path / "log.jsonl", []
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    load(format, path, tmp_path / "run", warn=told.append, **options)
    traces = list(Run.open(tmp_path / "run").traces())
    return [trace.correct for trace in traces], {trace.provenance.get("metric") for trace in traces}, told


def refusal(*args, **options) -> str:
    with pytest.raises(WrongturnError) as caught:
        grades(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def metrics(*values: dict) -> list[dict]:
    return [{"messages": TURNS, "metrics": value} for value in values]


def rewards(*values: float) -> list[dict]:
    return [{"prompt": f"q{i}", "completion": "a", "reward": value} for i, value in enumerate(values)]


def test_a_continuous_metric_does_not_grade_its_extremes(tmp_path):
    found, _, told = grades(tmp_path, "verifiers", rewards(*[0.2] * 3, 0.9, *[1.0] * 2))
    assert found == [None] * 6
    assert len(told) == 1
    assert "nothing is graded" in told[0]
    assert "'reward' is 0.2 in row 1" in told[0]
    assert "wrongturn regrade" in told[0]


def test_a_continuous_metric_that_is_named_is_refused(tmp_path):
    line = refusal(tmp_path, "verifiers", rewards(1.0, 0.2, 0.0), metric="reward")
    assert line.endswith("log.jsonl: row 2: metric 'reward' is 0.2, expected 0 or 1, true or false in every row")


def test_one_metric_grades_all_rows(tmp_path):
    rows = metrics({"rouge": 0.4, "wins": 0}, {"rouge": 1.0, "wins": 0}, {"rouge": 0, "wins": 1})
    found, names, told = grades(tmp_path, "chat", rows)
    assert (found, names) == ([False, False, True], {"wins"})
    assert "graded by 'wins'" in told[0]
    assert "'rouge' is 0.4 in row 1" in told[0]


def test_the_order_of_preference_is_kept(tmp_path):
    rows = metrics({"a": 1, "score": 0.5, "exact_match": 0}, {"a": 1, "score": 1, "exact_match": 1})
    assert grades(tmp_path, "chat", rows)[:2] == ([False, True], {"exact_match"})


def test_rewards_come_before_metrics(tmp_path):
    nodes = [{"message": TURNS[0]}, {"parent": 0, "sampled": True, "message": TURNS[1]}]
    row = {"nodes": nodes, "metrics": {"turns": 1.0}, "rewards": {"right": {"score": 0.0}}}
    assert grades(tmp_path, "verifiers", [row])[:2] == ([False], {"right"})


def test_a_row_without_the_metric_is_ungraded(tmp_path):
    rows = metrics({"wins": True}, {}, {"wins": None}, {"wins": float("nan")}, {"wins": 0.0})
    for metric in ("wins", None):
        found, _, told = grades(tmp_path / str(metric), "chat", rows, metric=metric)
        assert (found, told) == ([True, None, None, None, False], [])


def test_a_metric_that_no_row_has_is_refused(tmp_path):
    assert "no metric 'speed' (there are: wins)" in refusal(tmp_path, "chat", metrics({"wins": 1}, {}), metric="speed")
    assert "no metric 'speed' (there are: none)" in refusal(tmp_path, "chat", metrics({}), metric="speed")


def test_rows_that_cannot_be_used_have_no_say(tmp_path):
    rows = [*metrics({"wins": 1}), {"messages": 3, "metrics": {"wins": 0.5}}]
    assert grades(tmp_path, "chat", rows)[0] == [True]


def test_no_metrics_and_no_values_are_no_matter(tmp_path):
    assert grades(tmp_path, "chat", metrics({}, {"wins": None}))[0] == [None] * 2
    assert grades(tmp_path, "chat", metrics({}))[2] == []


def test_verdicts_in_words(tmp_path):
    rows = metrics(*({"match": value} for value in ("C", "I", "N", "C")))
    assert grades(tmp_path, "chat", rows)[0] == [True, False, False, True]
    rows += metrics({"match": "P"})
    found, _, told = grades(tmp_path / "partial", "chat", rows)
    assert found == [None] * 5
    assert "'match' is \"P\" in row 5" in told[0]


def test_what_is_told_is_short(tmp_path):
    rows = metrics({f"m{i}": 0.5 for i in range(9)})
    assert "'m3' is 0.5 in row 1 and 5 more)" in grades(tmp_path, "chat", rows)[2][0]


@pytest.mark.parametrize("metric", ["exact_match", None])
def test_a_file_without_text_is_no_error_of_the_metric(tmp_path, metric):
    path = next((Path(__file__).with_name("files")).glob("samples_tiny_choice_*"))
    assert load("lm-eval", path, tmp_path / "run", metric=metric).traces == 0
