"""Figures of the probes: what is averaged, what is left out, and that a page needs none of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ladders import SMALL, TINY, write_ladder
from typer.testing import CliRunner

from mixplan.cli import app
from mixplan.documents.measurements import TEXT_COLUMNS
from mixplan.documents.table import Table, from_rows
from mixplan.report.cells import ladder_of
from mixplan.report.figures import dependence, features, interference, loss, peel_off, protocols, retention
from mixplan.report.figures.base import Sizes
from mixplan.report.text import NARROW

SIZES = Sizes([("s", 10.0), ("l", 20.0)])


def table(rows: Iterable[dict[str, Any]], **common: Any) -> Table:
    base = {"seed": 0, "family": "sums", "complexity": 3, "task": "t", "tokens": 100, "step": 1}
    size = {"s": 10, "l": 20}
    return from_rows(
        [{**base, **common, "block_params": size[r["rung"]], "run_id": r["rung"], **r} for r in rows],
        TEXT_COLUMNS,
    )


def burst(at: float, gains: dict[float, float], **more: Any) -> list[dict[str, Any]]:
    course = {"rung": "s", "injected_at_tokens": at, "choice_nll_before": 1, "instances": 8}
    return [{**course, "delay_tokens": d, "choice_nll": 1 - g, "gain": g, **more} for d, g in gains.items()]


def test_injections_are_never_averaged_with_one_another() -> None:
    rows = table([
        *burst(50, {0: 1.0, 100: 2.0, 400: 1.0}, task="a"),
        *burst(80, {0: 0.1, 100: 0.2}, task="b"),
    ])  # fmt: skip
    (_, first, early), (_, second, late) = retention.injections(rows)
    assert (first, second) == ("sums (3), injection 1 of 2", "sums (3), injection 2 of 2")
    assert [retention.decays(part)[0].gain.tolist() for part in (early, late)] == [
        [1.0, 2.0, 1.0],
        [0.1, 0.2],
    ]
    figure = retention.figure(rows, SIZES)
    assert figure is not None
    assert figure.finding.startswith(f"400 tokens after a burst the 10 size keeps 50{NARROW}% of its peak")
    assert "injection 2 of 2: gain" in figure.body


def test_a_mean_stands_only_where_all_its_probes_were_measured() -> None:
    """The second run ended before the longest delay: the mean must not jump there to the first run's gain."""
    rows = table([
        *burst(50, {0: 1.0, 100: 1.0, 400: 9.0}, run_id="a"),
        *burst(50, {0: 3.0, 100: 3.0}, run_id="b"),
    ])  # fmt: skip
    (curve,) = retention.decays(rows)
    assert (curve.delay.tolist(), curve.gain.tolist()) == ([0, 100], [2.0, 2.0])


def test_what_was_measured_inside_the_decay_is_left_out() -> None:
    rows = [*burst(50, {0: 1.0, 100: 2.0}, decaying=0), *burst(50, {400: 9.0}, decaying=1)]
    ((_, _, kept),) = retention.injections(table(rows))
    assert kept["delay_tokens"].tolist() == [0, 100]
    assert retention.figure(table([{**row, "decaying": 1} for row in rows]), SIZES) is None


def test_skill_against_gap_compares_the_same_frequencies() -> None:
    """The rarer cell has no gap of 8 steps: it must not enter the mean of the others."""
    rows = [
        {"rung": "s", "frequency": f, "skill": skill, "protocol": protocol, "gap_tokens": gap}
        for protocol, gap, skills in (
            ("standard", 0, {1e-3: 0.1, 2e-3: 0.8, 4e-3: 0.9}),
            ("gap 8 steps", 800, {2e-3: 0.4, 4.01e-3: 0.5}),
            ("4 unique instances", 0, {2e-3: 0.9}),
        )
        for f, skill in skills.items()
    ]
    found = table([*rows, {**rows[0], "frequency": 1e-3, "skill": 0.9, "tokens": 50}], accuracy=0, chance=0)
    figure = protocols.figure(found, SIZES)
    assert figure is not None
    assert figure.finding == (
        "At equal frequency, gap 8 steps instead of standard changes mean skill by −0.40 at 10 block"
        " parameters (the largest of 2 changes)."
    )
    skills = protocols.cell_skills(found.where(found["tokens"] == 100), np.zeros(len(rows), dtype=int))
    gaps = {one: skills[one] for one in ("standard", "gap 8 steps")}
    assert protocols.gap_curves("sums (3)", gaps, 1)[0] == pytest.approx(np.array([[0, 0.85], [800, 0.45]]))
    assert ">−0.400<" in figure.body and ">+0.100<" in figure.body


def test_protocols_without_a_counterpart_give_no_figure() -> None:
    rows = [
        {"rung": "s", "frequency": f, "skill": 0.5, "protocol": protocol}
        for f, protocol in ((1e-3, "standard"), (2e-3, "gap 8 steps"))
    ]
    assert protocols.figure(table(rows), SIZES) is None
    assert (
        protocols.figure(table([{**rows[1], "protocol": p} for p in ("gap 2 steps", "aligned")]), SIZES)
        is None
    )


def test_features_are_read_at_the_end_and_shown_beside_their_null() -> None:
    rows = [
        {"rung": rung, "frequency": 1e-3, "layer": layer, "feature": "order_r2", "value": v, "null": -0.5}
        | {"tokens": tokens}
        for rung, end in (("s", 0.1), ("l", 0.6))
        for tokens, shift in ((50, -9.0), (100, 0.0))
        for layer, v in ((0, end + shift), (1, end + shift + 0.2))
    ]
    figure = features.figure(table(rows), SIZES)
    assert figure.finding == (
        "R² of the hidden order: 0.70 (null −0.50) at 20, 0.20 (null −0.50) at 10 block parameters."
    )
    assert figure.data is not None and "0.800 (−0.500)" in figure.data and "0.300 (−0.500)" in figure.data


def test_peel_off_shows_the_ends_of_the_kind_that_was_learned_best() -> None:
    rows = [
        {"rung": rung, "complexity": level, "frequency": f, "tokens": tokens, "lm_loss": 4 - tokens / 50}
        | {"choice_nll": nll, "reference_choice_nll": ref, "excess_nll": None if ref is None else nll - ref}
        for level, learned in ((3, 0.5), (5, 1.0))
        for f in (1e-3, 2e-3, 4e-3)
        for rung in ("s", "l")
        for tokens in (50, 100)
        for nll in [2 - learned * (tokens > 50) * (0.2 if rung == "s" else 1) * f / 4e-3]
        for ref in [None if rung == "l" else 2 - learned * (tokens > 50) * f / 4e-3]
    ]
    figure = peel_off.figure(table(rows), SIZES)
    assert figure.finding == (
        "At the same LM loss, the smallest size's loss on sums (5) differs from the largest's by +0.80 nats"
        " at frequency 4·10⁻³ (10 block parameters) and +0.20 nats at frequency 10⁻³ (10 block parameters)."
    )
    assert figure.body.count('<path class="line') == 4  # two runs, two frequencies
    empty = peel_off.figure(table([{**row, "excess_nll": None} for row in rows]), SIZES)
    assert "0 evaluations" in empty.finding


def test_dependence_holds_differences_against_what_seeds_differ_by() -> None:
    rows = [
        {"rung": "s", "task": name, "frequency": 1e-3, "skill_alone": 0.5 + d, "skill_together": 0.5}
        | {"skill_difference": d, "skill_seed_sd": 0.1, "choice_nll_difference": -d}
        for name, d in (("a", 0.25), ("b", -0.3), ("c", 0.0))
    ]
    finding = dependence.figure(table(rows), SIZES).finding
    assert "by −0.017 on average over 3 comparisons" in finding and "at most by −0.300 (b at 10" in finding
    assert finding.endswith("; 1 of 3 by more than twice what two seeds differ by.")  # 0.25 < 2·√2·0.1 < 0.3
    one = dependence.figure(table([{**row, "skill_seed_sd": None} for row in rows]), SIZES)
    assert "with one seed" in one.finding


def test_interference_without_own_tokens_somewhere_is_averaged_where_known() -> None:
    rows = [
        {"rung": "s", "frequency": 1e-3, "cosine": 0.1, "loss_change": -0.1, "cosine_own": own}
        for own in (0.5, None, 0.7)
    ]
    figure = interference.figure(table(rows), SIZES)
    assert "own tokens against its gradient" in figure.body and "mean 0.6" in figure.body
    assert "gradient alone" not in figure.body and "momentum" in figure.caption


def test_losses_before_and_after_a_decay_are_not_one_curve() -> None:
    rows = [
        {"rung": "s", "frequency": 1e-3, "skill": 0, "tokens": t, "lm_loss": value, "decayed": decayed}
        for t, value, decayed in ((50, 4.0, 0), (98, 3.0, 0), (100, 2.0, 1), (150, 2.5, 0), (200, 1.5, 1))
    ]
    found = table(rows)
    ladder = ladder_of(found, 0.8)
    losses = loss.losses_of(found, ladder)
    assert losses is not None
    assert losses.ended.tolist() == [False, False, True, False, True]
    assert losses.final.tolist() == [False] * 4 + [True]
    figure = loss.figure(found, ladder, SIZES, None)
    assert figure is not None and "ends at 1.50" in figure.finding
    for shown in ("98 tokens, before the decay\nLM loss 3", "100 tokens, end of a horizon\nLM loss 2"):
        assert shown in figure.body


@pytest.mark.slow
def test_a_real_ladder_with_every_probe_becomes_a_page(tmp_path: Path) -> None:
    spec = write_ladder(
        tmp_path / "w",
        ladder=[TINY, SMALL],
        horizons={"tokens": [2560, 5120]},
        tasks=[
            {"family": "comparison", "complexities": [6], "frequencies": [0.02, 0.01], "gaps_steps": [1, 8]}
        ],
        probes={
            "evaluations": 4,
            "lm_loss_tokens": 512,
            "retention": {
                "instances": 4, "burst_steps": 1, "replicas": 2, "delays_steps": [0, 1, 4, 8],
                "at_fractions": [0.3, 0.6],
            },
            "interference": {"points": 2, "batch_sequences": 4},
        },
        dependence={"cells": 1, "rungs": ["tiny"]},
    )  # fmt: skip
    runs, page = tmp_path / "w" / "runs", tmp_path / "report.html"
    for command in (
        ["calibrate", str(spec), "--slots", "1"],
        ["collect", str(runs), "-o", str(tmp_path / "w" / "measurements")],
        [
            "fit",
            str(tmp_path / "w" / "measurements"),
            "-o",
            str(tmp_path / "w" / "calibration.json"),
            "--draws",
            "20",
        ],
        ["report", str(tmp_path / "w"), "-o", str(page)],
    ):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    drawn = page.read_text(encoding="utf-8")
    for anchor in (
        "frequency", "size", "protocols", "retention", "interference", "features", "peel_off", "dependence",
        "loss",
    ):  # fmt: skip
        assert f'<section id="{anchor}"' in drawn
    assert "4 cells of 8 (counted in every run)" in drawn and "do not belong together" not in drawn
    assert "2 ends of trainings shorter" in drawn
