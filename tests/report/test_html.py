"""The report as a file: self-contained, escaped, within its size, and whole whatever is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import report_cases as cases

from wrongturn.report import write
from wrongturn.report.blocks import LISTED
from wrongturn.report.payload import pack
from wrongturn.signals import Signals
from wrongturn.trace import Problem, Trace

NASTY = "<img src=x onerror=alert(1)></script><script>alert(2)</script>&\"'"


class Page(HTMLParser):
    """The elements of a page, the text people read, and its data blocks."""

    def __init__(self, path) -> None:
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.data: dict[str, bytes] = {}
        self._open: list[tuple[str, dict]] = []
        self.feed(self.html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._open.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        tag, attributes = self._open[-1] if self._open else ("", {})
        if tag == "script" and attributes.get("type") == "application/octet-stream":
            self.data[attributes["id"]] = zlib.decompress(base64.b64decode(data))
        elif tag in ("script", "style"):
            (self.scripts if tag == "script" else self.styles).append(data)
        else:
            self.text += data

    @property
    def index(self) -> dict:
        return json.loads(self.data["index"])


def tokens_of(page: Page, row: int) -> dict:
    """A second reader of the format, straight from the table in ``blocks.py``."""
    index = page.index
    block, offset, count = (index["traces"][name][row] for name in ("block", "offset", "stored"))
    data, at = np.frombuffer(page.data[f"block-{block}"], np.uint8), 0
    n, m = index["blocks"][block]
    k, width = index["top"], index["width"]

    def take(length: int, planes: int = 1) -> np.ndarray:
        nonlocal at
        part = data[at : at + length * planes].reshape(planes, length).astype(int)
        at += length * planes
        return sum(part[p] << (8 * p) for p in range(planes))

    text, entropy, nll, margin, flags = take(n, width), take(n, 2), take(n, 2), take(n), take(n)
    others, chances = take(m * k, width).reshape(m, k), take(m * k).reshape(m, k)
    assert at == len(data)
    mine = slice(offset, offset + count)
    listed = np.cumsum((flags & LISTED) > 0) - 1
    picked = [listed[i] if flags[i] & LISTED else None for i in range(n)][mine]
    return {
        "text": [index["tokens"][i] for i in text[mine]],
        "entropy": np.where(entropy == 65535, np.nan, entropy / 1000)[mine],
        "nll": np.where(nll == 65535, np.nan, nll / 1000)[mine],
        "margin": np.where(margin == 255, np.nan, margin / 254)[mine],
        "flags": flags[mine],
        "others": [None if j is None else [index["tokens"][i] for i in others[j]] for j in picked],
        "chances": [None if j is None else (chances[j] / 254) ** 2 for j in picked],
    }


@pytest.fixture(scope="module")
def run():
    return cases.run(45, 2)


@pytest.fixture(scope="module")
def page(run, tmp_path_factory) -> Page:
    traces, problems = run
    path = tmp_path_factory.mktemp("report") / "report.html"
    findings = cases.study(traces, problems)
    given = {"traces": traces, "problems": problems, "study": findings}
    assert write(path, **given, comparison=cases.comparison(), meta=cases.meta()) == path
    return Page(path)


# -- one file, no network ----------------------------------------------------------------------------------------------


def test_fetches_nothing(page):
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            target = attributes.get(name)
            assert target is None or target.startswith("#") or target == "data:,", (tag, attributes)
    assert not re.search(r"url\(|@import|@font-face", "".join(page.styles))
    assert not re.search(r"\b(fetch|XMLHttpRequest|WebSocket|EventSource|importScripts|sendBeacon)\b", page.scripts[-1])


def test_policy_allows_its_own_scripts_and_nothing_else(page):
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe" not in policy
    allowed = set(re.findall(r"'(sha256-[^']+)'", policy))
    found = {f"sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}" for s in page.scripts}
    assert found == allowed


def test_carries_the_licence_of_what_it_carries(page):
    assert "Copyright (c) 2022 Leon Sorokin" in page.html
    assert "Permission is hereby granted" in page.html


# -- the data ----------------------------------------------------------------------------------------------------------


def test_tokens_come_back(run, page):
    traces, _ = run
    rows = page.index["traces"]
    assert rows["id"] == [t.id for t in traces]
    for row in (0, len(traces) // 2, len(traces) - 1):
        trace, back = traces[row], tokens_of(page, row)
        assert "".join(back["text"]).replace("\0", "") == cases.graphs.decode(trace.ids)
        np.testing.assert_allclose(back["entropy"], trace.signals.entropy, atol=6e-4)
        np.testing.assert_allclose(back["nll"], trace.signals.nll, atol=6e-4)
        np.testing.assert_allclose(back["margin"], trace.signals.margin, atol=3e-3)
        np.testing.assert_allclose(np.array(back["chances"]), np.exp(trace.top_logprobs), atol=4e-3)
        assert [[text.replace("\0", "") for text in others] for others in back["others"]] == [
            cases.graphs.pieces(ids) for ids in trace.top_ids
        ]
        assert (back["flags"] & 1).astype(bool).tolist() == cases.TASK.boundaries(trace.ids).tolist()


def test_wrong_steps_carry_their_error(run, page):
    traces, problems = run
    row = next(i for i, t in enumerate(traces) if 0 <= t.onset < len(t))
    check = cases.TASK.check(problems[traces[row].problem], traces[row].ids)
    flags = tokens_of(page, row)["flags"]
    for step in check.segments:
        assert page.index["errors"][flags[step.stop - 1] >> 3][0] == (step.error or "")


def test_lineage_and_events_are_there(run, page):
    traces, _ = run
    index = page.index
    child = next(i for i, t in enumerate(traces) if t.lineage)
    assert traces[index["traces"]["parent"][child]].id == traces[child].lineage.parent
    [[at, name, detail]] = index["events"][str(child)]
    assert (at, name) == (traces[child].lineage.at, "spike")
    assert "chosen counterfactual" in detail


def test_unknown_is_not_zero(tmp_path):
    [problem] = cases.problems(1)
    ids = np.array([3, 4, 5], np.int32)
    trace = Trace("t", problem.id, problem.task, ids, ids, Signals.empty(3), "length", usage=cases.Usage(kept=3))
    page = Page(write(tmp_path / "r.html", traces=[trace], problems={problem.id: problem}))
    back = tokens_of(page, 0)
    assert np.isnan(back["entropy"]).all()
    assert np.isnan(back["nll"]).all()
    assert np.isnan(back["margin"]).all()
    assert page.index["traces"]["entropy"] == [None]
    assert page.index["traces"]["onset"] == [-2]


def test_a_large_vocabulary_takes_more_bytes(tmp_path):
    ids = np.arange(70_000, dtype=np.int32)
    trace = Trace("t", "p", "no such task", ids[:1], ids, Signals.empty(len(ids)), "length")
    page = Page(write(tmp_path / "r.html", traces=[trace], problems={}))
    assert page.index["width"] == 3
    assert tokens_of(page, 0)["text"] == [f"⟨{i}⟩" for i in ids]


def test_signals_of_another_length_count_as_unknown(tmp_path):
    ids = np.array([3, 4, 5], np.int32)
    trace = Trace("t", "p", "graph_search", ids, ids, Signals.empty(1), "length")
    page = Page(write(tmp_path / "r.html", traces=[trace], problems={}))
    assert np.isnan(tokens_of(page, 0)["entropy"]).all()


# -- escaping ----------------------------------------------------------------------------------------------------------


def test_nothing_from_outside_becomes_html(tmp_path):
    problem = Problem(NASTY, NASTY, NASTY, (1,), NASTY, NASTY)
    ids = np.arange(4, dtype=np.int32)
    trace = Trace(NASTY, NASTY, NASTY, ids, ids, Signals.empty(4), NASTY, NASTY, answer=NASTY, error=NASTY)
    trace.strategy, trace.correct, trace.onset = NASTY, False, 1
    trace.events = [{"event": NASTY, "at": 1, NASTY: NASTY}]
    figure = cases.estimate(0.5)
    study = {
        "accuracy": {NASTY: figure},
        "exact": {NASTY: figure},
        "error_classes": {NASTY: {NASTY: 3}},
        "entropy_onset": {NASTY: {"exact": figure}},
        "predictors": [{"signal": NASTY, "pooled": figure}],
        "recovery": {"conditions": {NASTY: {"mean": figure}}, "contrasts": {NASTY: figure}},
        "claims": [dict.fromkeys(("name", "text", "published", "verdict", "detail"), NASTY)],
    }
    row = {"strategy": NASTY, "accuracy": figure, "decoded_tokens": 3.0, "difference": None}
    meta = {"title": NASTY, "command": NASTY, "versions": {NASTY: NASTY}, "model": NASTY}
    path = tmp_path / "r.html"
    write(
        path,
        traces=[trace],
        problems={NASTY: problem},
        study=study,
        comparison=[row, {**row, "difference": figure}],
        meta=meta,
        pieces=lambda _, ids: [NASTY for _ in ids],
    )
    page = Page(path)
    assert "<img" not in page.html
    assert "alert(2)" not in "".join(page.scripts)
    assert "img" not in {tag for tag, _ in page.tags}
    assert page.text.count(NASTY) > 10
    assert set(tokens_of(page, 0)["text"]) == {NASTY}


# -- size and speed ----------------------------------------------------------------------------------------------------


def many(n: int, tokens: int, k: int = 3, seed: int = 0) -> tuple[list[Trace], dict[str, Problem]]:
    """``n`` traces of ``tokens`` tokens each: searches strung together, every signal noise that hardly compresses."""
    rng = np.random.default_rng(seed)
    few, problems = cases.run(20, 1)
    whole = np.concatenate([t.ids for t in few] * (tokens // 400 + 2))
    made = []
    for i in range(n):
        entropy = rng.gamma(0.3, 1.0, tokens)
        known = {"nll": rng.gamma(0.3, 1.0, tokens), "entropy": entropy, "margin": rng.random(tokens)}
        top = rng.integers(3, 31, (tokens, k)).astype(np.int32)
        chances = np.sort(rng.dirichlet(np.ones(k), tokens), axis=1)[:, ::-1].astype(np.float32)
        start = int(rng.integers(0, 200))
        made.append(
            replace(
                few[i % len(few)],
                id=f"trace-{i}",
                ids=whole[start : start + tokens],
                signals=Signals.from_dict(known),
                top_ids=top,
                top_logprobs=np.log(chances),
                correct=i % 3 > 0,
                onset=-1 if i % 3 else i % tokens,
                error=None if i % 3 else "revisit",
                lineage=None,
            )
        )
    return made, problems


@pytest.mark.extras
def test_five_thousand_traces_are_small_and_quick(tmp_path):
    traces, problems = many(5000, 150)
    start = time.process_time()
    path = write(tmp_path / "r.html", traces=traces, problems=problems)
    assert time.process_time() - start < 6
    assert path.stat().st_size <= 10_000_000
    page = Page(path)
    assert len(page.index["traces"]["id"]) == 5000
    kept = np.array(page.index["traces"]["stored"])
    assert (kept == 150).all()  # noise as it is, no trace has to go


@pytest.mark.extras
def test_what_does_not_fit_goes_in_order_and_is_named(tmp_path):
    traces, problems = many(300, 400)
    seen = []
    for limit in (10_000_000, 1_100_000, 700_000, 400_000, 250_000):
        page = Page(write(tmp_path / "r.html", traces=traces, problems=problems, limit=limit))
        assert len(page.html.encode()) <= limit
        index = page.index
        stored = np.array(index["traces"]["stored"]) > 0
        right = np.array(index["traces"]["correct"]) == 1
        listed = sum(m for _, m in index["blocks"]) / max(sum(n for n, _ in index["blocks"]), 1)
        seen.append((listed, stored[right].mean(), stored[~right].mean()))
        said = re.search(r"Left out to keep this file below [^<]*", page.text)
        assert (said is None) == (seen[-1] == (1.0, 1.0, 1.0))
        if said:
            assert ("alternatives" in said[0]) == (listed < 1)
            assert ("right traces" in said[0]) == (not stored[right].all())
            assert ("other traces" in said[0]) == (not stored[~right].all())
    assert seen[0] == (1.0, 1.0, 1.0)
    for listed, right, wrong in seen[1:]:
        assert listed < 1
        assert wrong == 1.0 or right == 0.0, "a failure's tokens went before all right ones had"
    assert len(set(seen)) == len(seen)


def test_thinning_keeps_the_onset_and_the_unsure(tmp_path):
    traces, problems = many(60, 400)
    page = Page(write(tmp_path / "r.html", traces=traces, problems=problems, limit=330_000))
    scale = page.index["scale"]
    row = next(i for i, t in enumerate(traces) if t.onset >= 0 and page.index["traces"]["stored"][i])
    others = tokens_of(page, row)["others"]
    wanted = (traces[row].signals.entropy >= scale / 3) | (np.arange(400) == traces[row].onset)
    assert [o is not None for o in others] == wanted.tolist()


def test_one_endless_trace_is_cut_not_dropped(tmp_path):
    [trace], problems = many(1, 300_000)
    page = Page(write(tmp_path / "r.html", traces=[trace], problems=problems, limit=1_200_000))
    stored = page.index["traces"]["stored"][0]
    assert 2000 <= stored < 300_000
    assert page.index["traces"]["length"] == [300_000]
    assert f"from number {stored:,} on" in page.text


def test_long_prompts_are_cut_before_traces_go(tmp_path):
    traces, problems = many(50, 20)
    rng = np.random.default_rng(0)
    noise = ["".join(map(chr, rng.integers(0x4E00, 0x9FFF, 20_000))) for _ in problems]
    problems = {id: replace(p, prompt=text) for (id, p), text in zip(problems.items(), noise, strict=True)}
    page = Page(write(tmp_path / "r.html", traces=traces, problems=problems, limit=400_000))
    assert "prompts beyond" in page.text
    assert len(page.index["traces"]["id"]) == 50


def test_a_list_too_long_is_thinned(tmp_path):
    traces, problems = many(3000, 1)
    page = Page(write(tmp_path / "r.html", traces=traces, problems=problems, limit=145_000))
    assert 0 < len(page.index["traces"]["id"]) < 3000
    assert "of 3,000 traces" in page.text


def test_no_room_at_all_is_an_error():
    traces, problems = many(3, 5)
    with pytest.raises(ValueError, match="bytes"):
        pack(traces, problems, {}, 100)


# -- what is missing ---------------------------------------------------------------------------------------------------


def test_nothing_at_all(tmp_path):
    page = Page(write(tmp_path / "deep" / "r.html", traces=[], problems={}))
    for said in ("No strategies were compared", "no onset curve", "no entropy picture", "No published claims"):
        assert said in page.text
    assert page.index["traces"]["id"] == []


@pytest.mark.parametrize("gone", ["accuracy", "exact", "error_classes", "onset", "entropy", "claims", "predictors"])
@pytest.mark.parametrize("value", [None, {}, []])
def test_any_part_of_a_study_may_be_missing(run, page, tmp_path, gone, value):
    traces, problems = run
    study = {**cases.study(traces[:20], problems), gone: value}
    assert Page(write(tmp_path / "r.html", traces=traces[:3], problems=problems, study=study)).text


def test_figures_that_are_not_known_are_not_numbers(tmp_path):
    unknown = {"value": None, "low": None, "high": None, "n": 0}
    study = {
        "accuracy": {"A": unknown, "B": cases.estimate(0.5)},
        "onset": {"curves": {"token": {"r": [0, 1], "value": [None, None], "median": unknown, "share_30": unknown}}},
        "claims": [{"text": "it rains", "estimate": unknown, "n": 0, "verdict": "cannot be told"}],
    }
    row = {"strategy": "s", "accuracy": unknown, "decoded_tokens": None, "difference": None, "equal_tokens": None}
    page = Page(write(tmp_path / "r.html", traces=[], problems={}, study=study, comparison=[row, row]))
    assert "not measured" in page.text
    assert not re.search(r"\b(nan|None|null)\b", page.text)


def test_a_manifest_will_do_for_meta(run, tmp_path):
    traces, problems = run
    settings = {"engine": "embedded", "model": "m-1", "seed": 3, "sampling": {"temperature": 1.0}, "budget": None}
    manifest = {"format": "wrongturn-run", "created": "today", "versions": [{"numpy": "2"}], "settings": settings}
    page = Page(write(tmp_path / "r.html", traces=traces[:4], problems=problems, meta=manifest))
    for said in ("m-1", "temperature 1.0", "numpy 2", "today"):
        assert said in page.text


# -- what it says ------------------------------------------------------------------------------------------------------


def test_three_sentences(page, run):
    traces, _ = run
    plain = [t for t in traces if t.strategy == "sample"]
    right = sum(t.correct for t in plain)
    text = page.text.replace("\u202f", " ")
    assert f"The embedded reasoner was right in {right} of {len(plain)} traces of 45 graph problems" in text
    assert "within the first 30 % of it" in text
    assert "the best of 2 strategies was guard" in text  # not the upper bound
    assert "which cannot be told from no difference" in text


def test_ungraded_traces_are_not_counted_as_solved(tmp_path):
    traces, problems = cases.run(40)
    plain = [t for t in traces if t.strategy == "sample"]
    for trace in plain[10:]:
        trace.correct = None
    page = Page(write(tmp_path / "r.html", traces=plain, problems=problems, study=cases.study(plain, problems)))
    right = sum(t.correct for t in plain[:10])
    said = page.text.replace("\u202f", " ")
    assert f"The embedded reasoner solved {right} of 10 graph problems" in said
    assert "; 30 of 40 traces are not graded." in said


def test_dearer_than_any_vote_is_said(tmp_path):
    base, guard, particles = cases.comparison()[:3]
    dear = {**particles, "equal_tokens": None, "beyond_votes": 200.0, "ungraded": 3}

    def said(*rows: dict) -> str:
        path = write(tmp_path / "r.html", traces=[], problems={}, comparison=[{**row, "ungraded": 3} for row in rows])
        return Page(path).text.replace("\u202f", " ")

    text = said(base, guard, dear)
    assert "self-consistency at equal decoded tokens, guard solved 74 %" in text
    assert "; particles:n=8 spent more than the largest vote collected (200 tokens)" in text
    assert "Problems left out, as not every answer to them is graded: 3." in text
    base = {**base, "equal_tokens": None}
    text = said(base, dear)
    assert "Held against sample, particles:n=8 solved 67 %" in text
    assert "at equal decoded tokens" not in text
    assert "; particles:n=8 spent more than the largest vote collected (200 tokens)" in text
    assert "collected (200" not in said(base, guard)


def test_verdicts_are_words(page):
    assert "holds" in page.text
    assert "cannot be told" in page.text


def test_a_report_that_fails_leaves_the_old_one(run, tmp_path):
    traces, problems = run
    path = tmp_path / "r.html"
    path.write_text("old")

    def broken(trace, ids):
        raise RuntimeError("no tokenizer")

    with pytest.raises(RuntimeError, match="no tokenizer"):
        write(path, traces=traces, problems=problems, pieces=broken)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
