"""Signals against their definitions written out in plain Python, and the properties that must hold for any input."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wrongturn.signals import FIELDS, SignalConfig, Signals, from_logits, from_topk, prefix_edges, windows

CONFIGS = st.builds(SignalConfig, st.sampled_from([0.3, 0.7, 0.9, 0.99, 1.0]), st.sampled_from([0.0, 0.1, 0.5, 3.0]))
LOGIT = st.floats(-30, 30) | st.sampled_from([-math.inf, -1000.0, 0.0, 1.0])
LOGITS = st.lists(LOGIT, min_size=1, max_size=40).filter(lambda row: max(row) > -math.inf)


def probabilities(logits):
    peak = max(logits)
    weights = [math.exp(x - peak) for x in logits]
    total = math.fsum(weights)
    return [w / total for w in weights]


def entropy(p):
    return -math.fsum(x * math.log(x) for x in p if x > 0)


def surprise(p):
    return -math.log(p) if p else math.inf


def is_nucleus(m, p, level, slack=1e-6):
    """Whether m is the smallest number of tokens reaching ``level``, forgiving rounding at the boundary."""
    ordered = sorted(p, reverse=True)
    return math.fsum(ordered[:m]) >= level - slack and math.fsum(ordered[: m - 1]) < level + slack


def check_row(signals, i, logits, chosen, config, tolerance):
    p = probabilities(logits)
    ordered = [*sorted(p, reverse=True), 0.0]
    assert signals.nll[i] == pytest.approx(surprise(p[chosen]), abs=20 * tolerance, rel=1e-6)
    assert signals.entropy[i] == pytest.approx(entropy(p), abs=tolerance)
    assert signals.entropy_low[i] == signals.entropy[i] == signals.entropy_high[i]
    assert signals.missing[i] == 0
    assert signals.margin[i] == pytest.approx(ordered[0] - ordered[1], abs=tolerance)
    assert is_nucleus(int(signals.nucleus_size[i]), p, config.nucleus_p)
    assert 1 <= signals.nucleus_size[i] <= sum(x > -math.inf for x in logits)
    near = sum(x - max(logits) >= -config.tie_delta for x in logits) - 1
    assert signals.near_tie[i] == near
    assert signals.fork[i] == (near > 0)


def all_nan(signals, index=...):
    return all(np.isnan(array[index]).all() for array in signals.dict().values())


def random_rows(seed, n, vocab, scale):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, vocab)) * scale, rng.integers(0, vocab, n)


@given(LOGITS, CONFIGS, st.data())
def test_from_logits_is_the_definition(row, config, data):
    chosen = data.draw(st.integers(0, len(row) - 1).filter(lambda i: row[i] == -math.inf or row[i] > max(row) - 600))
    signals = from_logits(np.array([row]), [chosen], config)
    check_row(signals, 0, row, chosen, config, 1e-6)


@pytest.mark.parametrize("vocab", [1, 2, 31, 1024, 1025, 6000])
@pytest.mark.parametrize("scale", [0.0, 0.01, 3.0, 20.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_from_logits_at_both_sides_of_the_sorting_limit(vocab, scale, dtype):
    logits, chosen = random_rows(vocab, 5, vocab, scale)
    logits[1, : vocab // 2] = -np.inf
    logits = logits.astype(dtype)
    for config in (SignalConfig(), SignalConfig(0.5, 2.0), SignalConfig(1.0, 0.0)):
        signals = from_logits(logits, chosen, config)
        for i in range(5):
            row = logits[i].tolist()
            p, near = probabilities(row), int(np.sum(logits[i] - logits[i].max() >= -config.tie_delta)) - 1
            assert signals.nll[i] == pytest.approx(surprise(p[chosen[i]]), rel=1e-5, abs=1e-6)
            assert signals.entropy[i] == pytest.approx(entropy(p), rel=2e-6, abs=2e-6)
            assert signals.margin[i] == pytest.approx(np.diff(sorted([0.0, *p])[-2:])[0], abs=1e-6)
            assert is_nucleus(int(signals.nucleus_size[i]), p, config.nucleus_p, slack=2e-6)
            assert signals.nucleus_size[i] <= np.sum(logits[i] > -np.inf)  # at nucleus_p = 1 too
            assert signals.near_tie[i] == near


def test_simple_cases_by_hand():
    signals = from_logits(np.log([[0.5, 0.25, 0.125, 0.125], [0.25] * 4]), [0, 3])
    assert signals.entropy.tolist() == pytest.approx([1.75 * math.log(2), 2 * math.log(2)])
    assert signals.nll.tolist() == pytest.approx([math.log(2), math.log(4)])
    assert signals.margin.tolist() == pytest.approx([0.25, 0.0], abs=1e-7)
    assert signals.nucleus_size.tolist() == [4, 4]
    assert signals.near_tie.tolist() == [0, 3]
    assert signals.fork.tolist() == [0, 1]
    only = from_logits([[3.0]], [0])
    assert [array.item() for array in only.dict().values()] == [0, 0, 0, 0, 0, 1, 1, 0, 0]


@pytest.mark.parametrize("vocab", [4, 2000])
@pytest.mark.parametrize("bad", [np.nan, np.inf, "banned"])
def test_a_row_that_is_no_distribution_is_nan_and_its_neighbours_are_not(vocab, bad):
    logits, chosen = random_rows(0, 3, vocab, 2.0)
    clean = from_logits(logits, chosen)
    if bad == "banned":
        logits[1] = -np.inf
    else:
        logits[1, 2] = bad
    signals = from_logits(logits, chosen)
    assert all_nan(signals, 1)
    for name in FIELDS:
        assert getattr(signals, name)[[0, 2]].tolist() == getattr(clean, name)[[0, 2]].tolist()


def test_a_banned_token_that_was_chosen_anyway_is_infinitely_surprising():
    assert from_logits([[0.0, -np.inf]], [1]).nll.tolist() == [math.inf]


@given(LOGITS, st.floats(-50, 50), st.randoms(use_true_random=False))
def test_order_and_offset_of_logits_do_not_matter(row, offset, random):
    order = list(range(len(row)))
    random.shuffle(order)
    chosen = max(range(len(row)), key=lambda i: row[i])
    config = SignalConfig(tie_delta=math.pi / 10)  # no test value lies exactly on this boundary
    plain = from_logits([row], [chosen], config)
    moved = from_logits([[row[i] + offset for i in order]], [order.index(chosen)], config)
    for name in ("nll", "entropy", "margin"):
        assert getattr(plain, name) == pytest.approx(getattr(moved, name), abs=1e-5)


def test_blocks_and_leading_axes_are_invisible():
    logits, chosen = random_rows(3, 6000, 31, 3.0)
    logits = logits.astype(np.float32)
    whole, folded = from_logits(logits, chosen), from_logits(logits.reshape(2, 60, 50, 31), chosen.reshape(2, 60, 50))
    assert folded.shape == (2, 60, 50)
    assert len(folded) == 50
    for i in (0, 4227, 4228, 4229, 5999):
        single = from_logits(logits[i], chosen[i])
        assert single.shape == ()
        for name in FIELDS:
            assert getattr(single, name) == getattr(whole, name)[i] == getattr(folded, name).reshape(-1)[i]


def test_from_logits_leaves_its_input_alone_and_takes_no_rows():
    for vocab in (31, 2000):
        logits, chosen = random_rows(0, 4, vocab, 1.0)
        before = logits.copy()
        from_logits(logits, chosen)
        assert np.array_equal(logits, before)
    assert from_logits(np.zeros((0, 31)), np.zeros(0, dtype=int)).shape == (0,)


@pytest.mark.parametrize(
    ("logits", "chosen", "message"),
    [
        (np.zeros((2, 3)), [0], "do not match"),
        (np.zeros((2, 0)), [0, 0], "do not match"),
        (np.zeros((2, 3)), [0, 3], r"\[0, 3\)"),
        (np.zeros((2, 3)), [-1, 0], r"\[0, 3\)"),
        (np.zeros((2, 3)), [0.5, 1.0], "token indices"),
    ],
)
def test_from_logits_refuses(logits, chosen, message):
    with pytest.raises(ValueError, match=message):
        from_logits(logits, chosen)


DISTRIBUTION = st.lists(st.sampled_from([0.0, 1.0]) | st.floats(1e-9, 1) | st.floats(0.4, 0.5), min_size=1, max_size=12)
DISTRIBUTIONS = DISTRIBUTION.filter(lambda w: sum(w) > 0).map(lambda w: np.array(w) / math.fsum(w))


def logs(p):
    with np.errstate(divide="ignore"):
        return np.log(p)


@settings(max_examples=300)
@given(DISTRIBUTIONS, st.integers(0, 3))
def test_topk_bounds_hold_the_exact_entropy_for_every_k(p, extra):
    exact = entropy(p)
    ordered, vocab = np.sort(p)[::-1], len(p) + extra  # more tokens of probability 0 change no bound's truth
    previous = math.inf
    for k in range(1, len(p) + 1):
        signals = from_topk(logs(ordered[:k]), np.nan, vocab)
        if ordered[0] == 0:
            continue
        low, high = float(signals.entropy_low), float(signals.entropy_high)
        assert low - 2e-6 <= exact <= high + 2e-6
        assert high - low <= previous + 2e-6  # knowing more never widens it
        previous = high - low
        assert signals.missing == pytest.approx(1 - math.fsum(ordered[:k]), abs=1e-6)
        assert float(from_topk(logs(ordered[:k]), np.nan).entropy_low) == pytest.approx(low, abs=1e-6)
    everything = from_topk(logs(ordered), np.nan, len(p))
    assert everything.entropy_low == pytest.approx(exact, abs=1e-6)
    assert everything.entropy_high == pytest.approx(exact, abs=2e-6)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_topk_bounds_are_attained(k):
    listed = np.array([0.3, 0.2, 0.12, 0.06, 0.06])[:k]
    r, last, vocab = 1 - listed.sum(), listed[-1], 40
    even = np.append(listed, np.full(vocab - k, r / (vocab - k)))
    uneven = np.append(listed, [last] * int(r / last))
    uneven = np.append(uneven, 1 - uneven.sum())
    signals = from_topk(logs(listed), np.nan, vocab)
    assert signals.entropy_high == pytest.approx(entropy(even), abs=1e-6)
    assert signals.entropy_low == pytest.approx(entropy(uneven), abs=1e-6)
    published = entropy(listed) - r * math.log(last)  # each missing token at p_k; weaker whenever r is no multiple
    assert signals.entropy_low >= published - 1e-6


@given(LOGITS, CONFIGS)
def test_topk_of_everything_is_from_logits(row, config):
    chosen = max(range(len(row)), key=lambda i: row[i])
    exact = from_logits(np.array([row]), [chosen], config)
    logprobs = np.array([row]) - max(row) - math.log(math.fsum(math.exp(x - max(row)) for x in row))
    signals = from_topk(logprobs, logprobs[:, chosen], len(row), config)
    for name in ("nll", "entropy", "entropy_low", "entropy_high", "missing", "margin"):
        assert getattr(signals, name) == pytest.approx(getattr(exact, name), abs=2e-6), name
    assert is_nucleus(int(signals.nucleus_size[0]), probabilities(row), config.nucleus_p)
    # a difference that equals tie_delta may round either way once the log-sum is subtracted
    band = [sum(x - max(row) >= -config.tie_delta + slack for x in row) - 1 for slack in (1e-9, -1e-9)]
    assert band[0] <= signals.near_tie[0] <= band[1]
    assert signals.fork[0] == (signals.near_tie[0] > 0)


@pytest.mark.parametrize("seed", range(5))
def test_topk_agrees_with_the_exact_signals_wherever_the_list_decides(seed):
    logits, chosen = random_rows(seed, 200, 60, 1 + seed)
    exact = from_logits(logits, chosen)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    for k in (2, 5, 20, 60):
        signals = from_topk(np.sort(logprobs, axis=1)[:, -k:], logprobs[np.arange(200), chosen], 60)
        assert signals.nll == pytest.approx(exact.nll, abs=1e-5)
        assert signals.margin == pytest.approx(exact.margin, abs=1e-6)
        assert np.array_equal(signals.nucleus_size, np.minimum(exact.nucleus_size, k + 1))
        assert np.array_equal(signals.near_tie, np.minimum(exact.near_tie, k - 1))
        assert np.array_equal(signals.fork, exact.fork)


def test_topk_entropy_is_renormalised():
    signals = from_topk(np.log([0.5, 0.25]), np.log(0.1), 100)
    assert signals.entropy == pytest.approx(entropy([2 / 3, 1 / 3]))
    assert signals.nll == pytest.approx(-math.log(0.1))


@given(DISTRIBUTIONS, st.randoms(use_true_random=False), st.sampled_from([math.nan, -math.inf, -9999.0]))
def test_topk_order_and_padding_do_not_matter(p, random, padding):
    listed = [x for x in np.sort(logs(p))[::-1][:5].tolist() if x > -math.inf]
    shuffled = [*listed, padding, padding]
    random.shuffle(shuffled)
    plain, padded = from_topk(listed, -1.0, 50), from_topk(shuffled, -1.0, 50)
    for name in FIELDS:
        assert np.array_equal(getattr(plain, name), getattr(padded, name), equal_nan=True), name


def test_one_listed_token_says_nothing_about_rivals_unless_it_has_nearly_all_the_mass():
    signals = from_topk(np.log([[0.4], [0.6], [1.0]]), [-1.0] * 3, 50)
    assert np.isnan(signals.entropy).tolist() == np.isnan(signals.margin).tolist() == [True, True, False]
    assert np.isnan(signals.near_tie).tolist() == np.isnan(signals.fork).tolist() == [True, False, False]
    assert signals.nucleus_size.tolist() == [2, 2, 1]
    assert signals.margin[2] == 1
    assert signals.entropy[2] == 0
    assert from_topk([[0.0]], [0.0], 1).margin.tolist() == [1]
    assert np.all(signals.entropy_low[:2] > 0.6)


def test_rows_without_logprobs_are_nan():
    logprobs = [[math.nan, math.nan], [-math.inf, math.nan], np.log([0.5, 0.5]), [math.nan, math.nan]]
    signals = from_topk(logprobs, [math.nan, math.nan, math.nan, -2.0], 10)
    assert all_nan(signals, [0, 1])
    assert np.isnan(signals.nll[2])
    assert signals.entropy[2] == pytest.approx(math.log(2))
    assert signals.nll[3] == 2
    assert all(np.isnan(getattr(signals, name)[3]) for name in FIELDS[1:])
    assert all_nan(from_topk(np.zeros((3, 0)), [math.nan] * 3, 10))
    assert from_topk(np.zeros((0, 20)), np.zeros(0), 10).shape == (0,)


def test_no_upper_bound_without_a_vocabulary():
    signals = from_topk(np.log([0.5, 0.3]), -1.0)
    assert np.isnan(signals.entropy_high)
    assert signals.entropy_low > entropy([0.5, 0.3])


def test_topk_in_float32_keeps_the_bounds_ordered():
    logits, chosen = random_rows(9, 20000, 31, 4.0)
    logprobs = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
    signals = from_topk(np.sort(logprobs, axis=1)[:, -20:].reshape(100, 200, 20), np.full((100, 200), -1.0), 31)
    exact = from_logits(logits, chosen).entropy.reshape(100, 200)
    assert np.all(signals.entropy_low <= signals.entropy_high)
    assert np.all(signals.entropy_low <= exact + 1e-5)
    assert np.all(exact <= signals.entropy_high + 1e-5)


def test_topk_bounds_meet_where_nothing_is_open_in_spite_of_rounding():
    for vocab in range(2, 60):
        uniform = np.full(vocab, -math.log(vocab), dtype=np.float32)
        for k in range(1, vocab + 1):
            signals = from_topk(uniform[:k], uniform[0], vocab)
            assert signals.entropy_low <= signals.entropy_high
            assert signals.entropy_low == pytest.approx(math.log(vocab), abs=2e-6)
        assert signals.missing == 0
        assert signals.entropy_low == signals.entropy_high


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[-1.0, -2.0]], [0.0, 0.0]), "do not match"),
        (([[3.0, -2.0]], [-1.0]), "logits"),
        (([[-3.0, -2.0]], [1.0]), "logits"),
        (([[-3.0, -2.0]], [-1.0], 0), "vocab_size"),
    ],
)
def test_from_topk_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        from_topk(*arguments)


@pytest.mark.parametrize("constants", [(0.0, 0.1), (1.1, 0.1), (math.nan, 0.1), (0.9, -0.1), (0.9, math.nan)])
def test_config_refuses(constants):
    with pytest.raises(ValueError, match="must be"):
        SignalConfig(*constants)


def trace(n, seed=0):
    signals = from_logits(*random_rows(seed, n, 7, 1.0))
    assert all(array.dtype == np.float32 for array in signals.dict().values())
    return signals


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True) for name in FIELDS)


def test_signals_slice_concat_and_round_trip():
    signals = trace(10)
    assert len(signals) == 10
    assert tuple(signals.dict()) == FIELDS
    assert same(Signals.concat([signals[:3], signals[3:]]), signals)
    assert same(signals[np.array([4, 1])], Signals.concat([signals[4:5], signals[1:2]]))
    assert same(signals[signals.fork > 0], signals[np.flatnonzero(signals.fork)])
    assert same(Signals.from_dict(signals.dict()), signals)
    assert len(Signals.concat([])) == 0
    assert len(Signals.empty(4)) == 4
    assert all_nan(Signals.empty(4))
    batch = from_logits(np.zeros((2, 5, 3)), np.zeros((2, 5), dtype=int))
    assert batch[1:].shape == (2, 4)
    assert Signals.concat([batch, batch]).shape == (2, 10)


def test_from_dict_takes_json_and_refuses_what_it_cannot_place():
    signals = Signals.from_dict({"nll": [1.0, None], "entropy": [0.0, 2.0]})
    assert np.isnan(signals.nll).tolist() == [False, True]
    assert np.isnan(signals.margin).all()
    assert len(signals) == 2
    with pytest.raises(ValueError, match="not signals: surprise"):
        Signals.from_dict({"surprise": [1.0]})
    with pytest.raises(ValueError, match="one shape"):
        Signals.from_dict({"nll": [1.0], "entropy": [1.0, 2.0]})


STATISTICS = {"mean": np.nanmean, "max": np.nanmax, "min": np.nanmin, "std": np.nanstd}


EDGES = st.tuples(st.integers(0, 35), st.integers(0, 35)).map(sorted)


@given(st.integers(0, 30), st.lists(EDGES, max_size=6), st.data())
def test_windows_are_the_definition(n, edges, data):
    signals = trace(n, seed=n)
    holes = data.draw(st.lists(st.integers(0, max(n - 1, 0)), max_size=n))
    signals.entropy[holes] = np.nan
    table = windows(signals, edges)
    assert len(table) == 17
    for w, (start, stop) in enumerate(edges):
        for key, values in table.items():
            field, statistic = ("fork", "mean") if key == "fork_rate" else key.rsplit("_", 1)
            part = getattr(signals, field)[start:stop].astype(np.float64)
            if part.size == 0 or np.isnan(part).all():
                assert np.isnan(values[w])
            else:
                assert values[w] == pytest.approx(STATISTICS[statistic](part), abs=1e-9)


@given(st.integers(0, 60), st.integers(1, 12))
def test_relative_windows_tile_the_trace(n, pieces):
    signals = trace(n)
    signals.nll[:] = np.arange(n)
    cuts = [i / pieces for i in range(pieces + 1)]
    table = windows(signals, list(itertools.pairwise(cuts)), relative=True)
    filled = ~np.isnan(table["nll_min"])
    first, last = table["nll_min"][filled], table["nll_max"][filled]
    expected = [math.ceil(i * n / pieces) for i in range(pieces + 1)]  # exact: integers before the one division
    assert [x for a, b in zip(first, last, strict=True) for x in np.arange(a, b + 1)] == list(range(n))
    assert filled.tolist() == [a < b for a, b in itertools.pairwise(expected)]


def test_relative_edges_forgive_rounding():
    signals = trace(100)
    signals.nll[:] = np.arange(100)
    assert 0.07 * 100 > 7
    table = windows(signals, [(0.07, 0.14)], relative=True)
    assert (table["nll_min"].item(), table["nll_max"].item()) == (7, 13)


def test_a_constant_window_has_no_spread_and_infinity_is_the_end():
    signals = from_logits(np.tile([0.3, 0.1, -0.2], (50, 1)), np.zeros(50, dtype=int))
    table = windows(signals, [*prefix_edges(7, math.inf), (49, math.inf)])
    outside = windows(signals, [(math.inf, math.inf), (-math.inf, -3), (50, 60), (1e300, math.inf)])
    assert np.isnan(outside["nll_mean"]).all()
    assert np.isnan(windows(trace(0), [(0, math.inf), (0, 1)], relative=True)["fork_rate"]).all()
    signals.nll[:] = np.arange(50)
    assert windows(signals, [(-math.inf, 10), (-5, 10)])["nll_mean"].tolist() == [4.5, 4.5]
    assert table["entropy_std"].tolist() == table["margin_std"].tolist() == [0, 0, 0]
    assert prefix_edges(128, 256) == [(0, 128), (0, 256)]


def test_windows_refuse():
    with pytest.raises(ValueError, match="one trace"):
        windows(from_logits(np.zeros((2, 5, 3)), np.zeros((2, 5), dtype=int)), [(0, 1)])
    for edges in [(3, 1), (math.nan, 2), (0, math.nan)]:
        with pytest.raises(ValueError, match="start <= stop"):
            windows(trace(5), [edges])
