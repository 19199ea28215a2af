"""The reports of ablations and sweeps, on whole tables and on tables with holes."""

import importlib.util
import pathlib
import re

import numpy as np
import pandas as pd
import pytest

from lm.analysis import TableError, ablation_report, compare, sweep_report
from lm.analysis.curves import arm_curves, curve_differences
from lm.analysis.figures import decode_speed, longest_context, loss_by_arm, paired_differences, tradeoff
from lm.analysis.style import arm_styles

_spec = importlib.util.spec_from_file_location("tables", pathlib.Path(__file__).with_name("tables.py"))
assert _spec and _spec.loader
tables = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tables)


@pytest.fixture
def runs():
    return tables.runs_table(tables.ATTENTION)


@pytest.fixture
def curves(runs):
    return tables.curves_table(runs)


@pytest.fixture
def decode():
    return tables.decode_table(tables.ATTENTION)


def make(runs, curves=None, decode=None, **more):
    settings = {"title": "T", "question": "Q?", "baseline": "MHA", **more}
    return ablation_report(runs=runs, curves=curves, decode=decode, **settings)


def table(report, name):
    return next(t for t in report.tables if t.name == name)


def test_a_whole_report(runs, curves, decode):
    report = make(runs, curves, decode, notes=["Mind the gap."], command="lm sweep run x.py")
    names = {p.name for p in report.plots}
    assert names == {"loss", "paired_difference", "curves", "curve_differences", "decode", "tradeoff"}
    arms = table(report, "arms").frame.set_index("arm")
    result = compare(runs, "MHA")
    for r in result.arms:
        assert arms.loc[r.arm, "heldout_loss"] == r.mean and arms.loc[r.arm, "verdict"] == r.verdict
        own = runs[runs["arm"] == r.arm]
        assert arms.loc[r.arm, "heldout_bpb"] == pytest.approx(own["heldout_bpb"].mean())
        assert arms.loc[r.arm, "tokens_per_second"] == pytest.approx(own["tokens_per_second"].median())
    assert arms.loc["MQA", "params_mismatch_percent"] == pytest.approx(100 * 3072 / 1_204_224)
    deep = decode[(decode["arm"] == "MQA") & (decode["context"] == 8192) & (decode["batch"] == 16)]
    assert arms.loc["MQA", "decode_tokens_per_second"] == deep["tokens_per_second"].item()
    speeds = table(report, "decode_speed")
    assert speeds.frame.equals(decode) and speeds.cells[0] == ["MHA", "256", "1", "769 [723, 792]", "a CPU"]
    text = report.text()
    assert "MQA is worse than MHA: +0.0" in text and "0.125 times the KV bytes" in text and "Mind the gap." in text
    assert set(table(report, "runs").frame["id"]) == set(runs["id"])
    page = report.html({name: b"" for name in names})
    assert "MQA is worse than MHA" in page and all(f'<figure id="{name}">' in page for name in names)
    for plot in report.plots:
        plot.figure.draw_without_rendering()


def test_seeds_hold_each_paired_difference(runs):
    seeds = table(make(runs), "seeds").frame
    loss = runs.set_index(["arm", "seed"])["heldout_loss"]
    for row in seeds[seeds["arm"] != "MHA"].to_dict("records"):
        assert row["difference"] == loss[row["arm"], row["seed"]] - loss["MHA", row["seed"]]
    assert seeds[seeds["arm"] == "MHA"]["difference"].isna().all()


def test_what_is_missing_is_said_and_never_zero(runs):
    few = runs[["arm", "seed", "heldout_loss"]]
    report = make(few)
    text = report.text(width=1000)
    for words in ("parameters", "FLOPs/token", "KV bytes/token", "bits/byte", "training tokens/s", "decode tokens/s"):
        assert words in text.split("Missing, because the tables don't have it:")[1]
    arms = table(report, "arms").frame
    assert arms[["params", "kv_bytes_per_token", "tokens_per_second", "decode_tokens_per_second"]].isna().all(axis=None)
    sentences = [i for s in report.sections for i in s.items if isinstance(i, str)]
    for start in ("Loss curves are missing", "Decoding speed is missing", "The trade-off figure is missing"):
        assert any(s.startswith(start) for s in sentences), start
    assert {p.name for p in report.plots} == {"loss", "paired_difference"}


def test_what_arms_share_is_shown_once():
    report = make(tables.runs_table({"SwiGLU": 0.0, "GELU": 0.01}, kv=[512, 512]), baseline="SwiGLU")
    assert "The same for every arm: 512 KV bytes/token." in report.text()
    assert "KV bytes/token" not in [c.heading for c in table(report, "arms").shown]
    assert "tradeoff" not in {p.name for p in report.plots}


def test_failed_arms_are_reported_not_hidden(decode):
    runs = tables.runs_table(tables.ATTENTION, failed=("GQA-2", ("MQA", 3)))
    report = make(runs, tables.curves_table(runs), decode)
    text = report.text()
    assert "GQA-2: nothing can be said, no finished run" in text
    assert "Left out: MQA, seed 3: status 'failed'" in text and "GQA-2, seeds 0, 1, 2, 3: status 'failed'" in text
    assert table(report, "arms").frame.set_index("arm").loc["GQA-2", ["heldout_loss", "difference"]].isna().all()


@pytest.mark.parametrize("seeds, failed", [(1, ()), (2, ("MHA",)), (2, tuple(tables.ATTENTION))])
def test_thin_tables_still_make_a_page(seeds, failed):
    runs = tables.runs_table(tables.ATTENTION, seeds=seeds, failed=failed)
    report = make(runs, tables.curves_table(runs))
    arms = table(report, "arms").frame
    assert arms[["low", "high", "p"]].isna().all(axis=None)
    for plot in report.plots:
        plot.figure.draw_without_rendering()
    page = report.html({plot.name: b"" for plot in report.plots})
    assert not re.search(r"\b[+-]?(nan|None)\b", re.sub(r"<style>.*</style>", "", page, flags=re.S))


def test_the_range_of_training_speed_is_shown_where_it_was_measured(runs):
    report = make(runs.assign(tokens_per_second=19000.0, tokens_per_second_low=18900.0, tokens_per_second_high=19200.0))
    assert "19,000 [18,900, 19,200]" in report.text() and "median and range over repeats" in report.text()
    assert "19,000 [" not in make(runs.assign(tokens_per_second=19000.0)).text()


@pytest.mark.parametrize(
    ("seeds", "said"), [(1, "1 seed an arm is too few"), (2, "2 seeds an arm are too few"), (3, None)]
)
def test_few_seeds_are_the_first_thing_said(seeds, said):
    report = make(tables.runs_table(tables.ATTENTION, seeds=seeds))
    answer = next(s for s in report.sections if s.heading == "Answer").items
    assert isinstance(answer[0], str) and len(answer) == 3 + (said is not None)
    assert answer[0].startswith(f"CAUTION: {said} to decide anything" if said else "GQA-4")


def test_short_runs_and_the_unit_of_kv_bytes_are_said(runs):
    text = " ".join(make(runs).text().split())
    assert "The runs are short: 3.4 tokens a parameter" in text and "KV bytes are at 2 bytes a number" in text
    assert "runs are short" not in make(runs.assign(tokens=30 * runs["params"].max())).text()


def test_unequal_budgets_are_said(runs):
    runs.loc[runs["arm"] == "MQA", "tokens"] = 2_048_000
    assert "different numbers of tokens: 2.05M to 4.10M" in make(runs).text()


def test_an_unknown_baseline_names_the_nearest(runs):
    with pytest.raises(TableError, match="did you mean 'GQA-4'"):
        make(runs, baseline="GQA4")


# ---- figures -------------------------------------------------------------------------------------------------


def test_an_arm_keeps_its_style():
    arms = [f"arm {i}" for i in range(12)]
    styles = arm_styles(arms, "arm 3")
    assert (
        len({(s.colour, str(s.dash)) for s in styles.values()})
        == 12
        == len({(s.colour, s.marker) for s in styles.values()})
    )
    assert len({s.colour for s in arm_styles(arms[:8], "arm 3").values()}) == 8


def test_figures_hold_the_tables_numbers(runs, decode):
    result = compare(runs, "MHA")
    (axes,) = paired_differences(result).axes
    drawn = [x for line in axes.lines for x in np.atleast_1d(line.get_xdata())]
    for r in result.others:
        assert any(np.isclose(r.difference, drawn)) and all(any(np.isclose(d, drawn)) for d in r.differences.values())
        assert any(f"{r.difference:+.4f} [{r.low:+.4f}, {r.high:+.4f}]" in t.get_text() for t in axes.texts)
    (axes,) = loss_by_arm(runs, result).axes
    drawn = [x for line in axes.lines for x in np.atleast_1d(line.get_xdata())]
    assert all(any(np.isclose(x, drawn)) for x in [*runs["heldout_loss"], *(r.mean for r in result.arms)])
    panels = decode_speed(decode).axes
    assert [a.get_title(loc="left") for a in panels] == ["batch 1", "batch 16"]
    assert all(
        a.get_ylim()[1] >= decode[decode["batch"] == b]["tokens_per_second"].max()
        for a, b in zip(panels, (1, 16), strict=True)
    )


def test_labels_of_the_tradeoff_dont_overlap(decode):
    names = ["MHA", "GQA-8", "GQA-4", "GQA-2", "MQA", "MLA rank 64, rotary 16", "window 256, every other layer", "NoPE"]
    runs = tables.runs_table(
        {n: 0.002 * i for i, n in enumerate(names)}, kv=[8192, 8192, 4096, 2048, 1024, 1024, 2048, 8192]
    )
    figure = tradeoff(runs, compare(runs, "MHA"), tables.decode_table(names))
    assert figure is not None
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in figure.axes[0].texts]
    assert len(boxes) == 8
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert not a.overlaps(b)
        frame = figure.axes[0].get_window_extent()
        assert frame.x0 - 1 <= a.x0 and a.x1 <= frame.x1 + 1


def test_the_mean_curve_has_no_jump_where_a_run_stopped():
    rows = [
        {"arm": "A", "seed": seed, "split": "heldout", "tokens": t, "loss": 10.0 * seed + t}
        for seed, last in ((0, 4), (1, 4), (2, 2))
        for t in range(1, last + 1)
    ]
    curve = arm_curves(pd.DataFrame(rows), "heldout")["A"]
    assert curve.complete == (0, 1) and list(curve.mean) == [6, 7, 8, 9] and set(curve.seeds) == {0, 1, 2}


def test_curve_differences_are_taken_inside_seeds():
    rows = [
        {"arm": arm, "seed": seed, "split": "heldout", "tokens": t, "loss": 100.0 * seed + t + effect}
        for arm, effect, seeds in (("A", 0, (0, 1, 2)), ("B", 0.5, (1, 2)))
        for seed in seeds
        for t in (1, 2, 3)
    ]
    figure = curve_differences(pd.DataFrame(rows), "A")
    assert figure is not None
    lines = [line.get_ydata() for line in figure.axes[0].lines[1:]]
    assert len(lines) == 3 and all(np.allclose(y, 0.5) for y in lines)
    with pytest.raises(TableError, match="no arm with heldout loss called 'a'; did you mean 'A'"):
        curve_differences(pd.DataFrame(rows), "a")


def test_the_longest_context_is_one_that_all_arms_share(decode):
    point = longest_context(decode[~((decode["arm"] == "MHA") & (decode["context"] > 2048))])
    assert point and (point.context, point.batch) == (2048, 16) and set(point.speed) == set(tables.ATTENTION)
    assert longest_context(None) is None and longest_context(decode.iloc[:0]) is None


# ---- sweeps --------------------------------------------------------------------------------------------------


def sweep_runs(rates=(1e-4, 1e-3, 1e-2), decays=(0.0, 0.1), failed=()):
    rows = []
    for rate in rates:
        for decay in decays:
            for seed in (0, 1):
                loss = 1.7 + 0.05 * (np.log10(rate) + 3) ** 2 + 0.1 * decay + 0.001 * seed
                status = "failed" if (rate, decay) in failed else "done"
                row = {"arm": f"{rate:g}/{decay:g}", "seed": seed, "id": f"{len(rows):04x}", "status": status}
                rows.append({**row, "train.rate": rate, "train.decay": decay, "heldout_loss": loss})
    return pd.DataFrame(rows)


def sweep(runs, axes=("train.rate", "train.decay"), curves=None):
    return sweep_report(title="T", question="Q?", axes=list(axes), runs=runs, curves=curves)


def test_a_sweep_lists_settings_best_first():
    report = sweep(sweep_runs(failed=[(1e-4, 0.1)]))
    frame = table(report, "settings").frame
    assert list(frame["heldout_loss"]) == sorted(frame["heldout_loss"]) and len(frame) == 5 and set(frame["n"]) == {2}
    assert frame.loc[0, "heldout_loss"] == pytest.approx(1.7005) and frame.loc[0, "train.rate"] == 1e-3
    assert "train.rate = 0.001, train.decay = 0. 10 of 12 runs finished" in " ".join(report.text().split())
    assert "Left out: 0.0001/0.1, seeds 0, 1" in report.text()
    figure = next(p.figure for p in report.plots if p.name == "loss_over_axis")
    means = figure.axes[0].lines[0]
    assert np.allclose(means.get_xdata(), [1e-4, 1e-3, 1e-2]) and np.allclose(
        means.get_ydata(), [1.7505, 1.7005, 1.7505]
    )
    assert figure.axes[0].get_xscale() == "log" and figure.axes[0].get_xlabel() == "train.rate"


@pytest.mark.parametrize("rates, decays, drawn", [((1e-3,), (0.0, 0.1), True), ((1e-3,), (0.1,), False)])
def test_an_axis_is_drawn_only_if_it_varies(rates, decays, drawn):
    report = sweep(sweep_runs(rates, decays))
    assert ("loss_over_axis" in {p.name for p in report.plots}) == drawn


def test_words_arent_an_axis_to_draw_over():
    runs = sweep_runs().assign(optimizer=lambda t: np.where(t["train.decay"] > 0, "lion", "adamw"))
    assert "loss_over_axis" not in {p.name for p in sweep(runs, ("train.rate", "optimizer")).plots}


def test_sweep_errors():
    with pytest.raises(TableError, match=r"did you mean 'train\.rate'"):
        sweep(sweep_runs(), axes=("train.rat",))
    with pytest.raises(TableError, match="no runs"):
        sweep(sweep_runs().iloc[:0])
    with pytest.raises(TableError, match=r"arm 'x' differ in train\.rate"):
        sweep(sweep_runs(decays=(0.0,)).assign(arm="x", seed=range(6)))
    assert "None of the 2 runs finished" in sweep(sweep_runs((1e-3,), (0.1,), failed=[(1e-3, 0.1)])).text()
