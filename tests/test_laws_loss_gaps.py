"""Which loss gaps data can close: closed forms against numerical optima, constants, limits, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from loss_ladders import TRUTH, loss_ladder
from scipy.optimize import minimize_scalar
from typer.testing import CliRunner

from mixplan.cli import app
from mixplan.documents import Calibration, save
from mixplan.documents.calibration import FittedLaw, Range
from mixplan.errors import InputError, NoAnswer
from mixplan.laws import lm_loss
from mixplan.laws.loss_gaps import (
    loss_gaps,
    optimal_loss,
    optimal_tokens,
    size_ratio_bound,
    tokens_to_reach,
    unlimited_loss,
)

CHINCHILLA = np.array([1.69, 406.4, 0.34, 410.7, 0.28])


def calibration_with(law: FittedLaw | None) -> Calibration:
    """A calibration of which `gaps` reads the loss law alone."""
    other = FittedLaw(law="", formula="", parameters=[], values=[], rows=0, runs=0)
    return Calibration(learning=other, lm_loss=law)


def law_of(values: np.ndarray, draws: list[np.ndarray] | None = None, **settings: float) -> FittedLaw:
    return FittedLaw(
        law=lm_loss.NAME,
        formula="",
        parameters=list(lm_loss.PARAMETERS),
        values=values.tolist(),
        draws=[draw.tolist() for draw in draws or []],
        ranges={"block_params": Range(low=1e4, high=1e6), "tokens": Range(low=1e5, high=1e9)},
        settings={"block_params_1": 1e4, "block_params_2": 1e5, "block_params_3": 1e6, **settings},
        rows=1,
        runs=1,
    )


@pytest.mark.parametrize("parameters", [CHINCHILLA, TRUTH])
@pytest.mark.parametrize("size", [1e4, 1e8])
def test_the_closed_form_is_the_optimum_at_its_compute(parameters: np.ndarray, size: float) -> None:
    tokens = float(optimal_tokens(parameters, size))
    flops = 6 * size * tokens

    def loss(log_size: float) -> float:
        return float(lm_loss.predict(parameters, np.exp(log_size), flops / 6 / np.exp(log_size)))

    best = minimize_scalar(loss, bracket=(np.log(size) - 2, np.log(size) + 2), tol=1e-12)
    assert np.exp(best.x) == pytest.approx(size, rel=1e-4)
    assert float(optimal_loss(parameters, size)) == pytest.approx(best.fun, rel=1e-12)
    assert float(optimal_loss(parameters, size)) == pytest.approx(
        float(lm_loss.predict(parameters, size, tokens)), rel=1e-12
    )


def test_gamma_is_the_exponent_of_the_optimal_loss_in_compute() -> None:
    sizes = np.array([1e6, 1e9])
    flops = 6 * sizes * optimal_tokens(CHINCHILLA, sizes)
    above = np.log(optimal_loss(CHINCHILLA, sizes) - CHINCHILLA[0])
    slope = (above[1] - above[0]) / np.log(flops[1] / flops[0])
    found = loss_gaps(calibration_with(law_of(CHINCHILLA))).gamma[0]
    assert found == pytest.approx(-slope) == pytest.approx(0.34 * 0.28 / 0.62)


@pytest.mark.parametrize(
    ("alpha", "beta", "bound"),
    # The constants of arXiv 2203.15556, and those of its refit in 2404.10102; 2 when both exponents are 1.
    [(0.34, 0.28, 10.36), (0.348, 0.366, 6.82), (1.0, 1.0, 2.0)],
)
def test_bound_on_the_size_ratio(alpha: float, beta: float, bound: float) -> None:
    assert float(size_ratio_bound(np.array([0, 1, alpha, 1, beta]))) == pytest.approx(bound, rel=2e-3)


def test_the_bound_is_where_unlimited_data_stops_sufficing() -> None:
    bound = float(size_ratio_bound(CHINCHILLA))
    target = optimal_loss(CHINCHILLA, 1e9)
    assert float(unlimited_loss(CHINCHILLA, 1e9 / bound)) == pytest.approx(float(target), rel=1e-12)
    assert np.isfinite(tokens_to_reach(CHINCHILLA, 1e9 / bound * 1.01, target))
    assert np.isinf(tokens_to_reach(CHINCHILLA, 1e9 / bound * 0.99, target))


def test_tokens_to_reach_a_loss_do_reach_it_and_fall_with_size() -> None:
    sizes = np.geomspace(2e8, 9e8, 8)
    target = optimal_loss(CHINCHILLA, 1e9)
    tokens = tokens_to_reach(CHINCHILLA, sizes, target)
    assert lm_loss.predict(CHINCHILLA, sizes, tokens) == pytest.approx(np.full(8, float(target)), rel=1e-9)
    assert (np.diff(tokens) < 0).all()
    assert float(tokens_to_reach(CHINCHILLA, 1e9, target)) == pytest.approx(
        float(optimal_tokens(CHINCHILLA, 1e9)), rel=1e-6
    )


def test_gaps_add_up_and_only_grow_apart() -> None:
    found = loss_gaps(calibration_with(law_of(CHINCHILLA)))
    pairs = {(gap.small_block_params, gap.large_block_params): gap for gap in found.gaps}
    assert set(pairs) == {(1e4, 1e5), (1e4, 1e6), (1e5, 1e6)}
    for gap in found.gaps:
        parts = (gap.by_data_nats[0] or 0) + (gap.by_size_nats[0] or 0)
        assert gap.gap_nats[0] == pytest.approx(parts)
        assert gap.closable == (gap.tokens_to_match[0] is not None) == (gap.by_size_nats[0] == 0)
    # A tenfold ratio lies just below the bound of 10.36.
    assert pairs[1e4, 1e5].closable and not pairs[1e4, 1e6].closable
    above = loss_gaps(calibration_with(law_of(CHINCHILLA)), small=1e4, large=1.04e5).gaps[0]
    assert not above.closable and 0 < above.by_size_nats[0] < pairs[1e4, 1e6].by_size_nats[0]


def test_share_of_draws_and_intervals_with_an_infinite_end() -> None:
    # The bound is 4.05 in the first draw and 10.36 in the three others, so 5× is closable in three of four.
    narrow = np.array([1.69, 406.4, 0.46, 410.7, 0.51])
    law = law_of(CHINCHILLA, [narrow, CHINCHILLA, CHINCHILLA, CHINCHILLA])
    gap = loss_gaps(calibration_with(law), small=1e5, large=5e5).gaps[0]
    assert gap.closable and gap.closable_share == 0.75
    estimate, low, high = gap.tokens_to_match
    assert estimate is not None and low is not None and high is None


def test_without_draws_there_are_no_intervals() -> None:
    found = loss_gaps(calibration_with(law_of(CHINCHILLA)))
    assert found.alpha == (0.34, None, None) and found.gaps[0].closable_share is None
    assert any("no draws" in text for text in found.warnings)


def test_an_exponent_that_rests_on_its_prior_is_named() -> None:
    found = loss_gaps(calibration_with(law_of(CHINCHILLA, alpha_measured=0.2, beta_measured=0.9)))
    assert any(text.startswith("alpha is hardly measured") for text in found.warnings)
    assert not any("beta" in text for text in found.warnings)


def test_sizes_and_tokens_outside_the_ladder_are_flagged() -> None:
    found = loss_gaps(calibration_with(law_of(CHINCHILLA)), large=7e6)
    assert any("7M block parameters lie outside" in text for text in found.warnings)
    assert all("block_params 7M is above the largest fitted 1M" in gap.extrapolated for gap in found.gaps)
    assert [gap.small_block_params for gap in found.gaps] == [1e4, 1e5, 1e6]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"small": 1e6, "large": 1e5}, "--small .1M. must lie below --large .100K."),
        ({"small": -1.0}, "--small must be a number of block parameters, in ones, not -1"),
        ({"large": float("nan")}, "--large must be a number of block parameters, in ones, not nan"),
        ({"small": 1e6}, "no size of the ladder .10K, 100K, 1M. is larger than --small 1M"),
        ({"large": 1e4}, "is smaller than --large 10K"),
    ],
)
def test_sizes_that_make_no_pair(given: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        loss_gaps(calibration_with(law_of(CHINCHILLA)), **given)


def test_without_a_loss_law_the_answer_is_no() -> None:
    with pytest.raises(NoAnswer, match="no LM-loss law"):
        loss_gaps(calibration_with(None))


def test_a_law_of_another_form_is_refused() -> None:
    other = law_of(CHINCHILLA).model_copy(update={"law": "another"})
    with pytest.raises(InputError, match="the LM-loss law is 'another'"):
        loss_gaps(calibration_with(other))


def test_intervals_hold_the_truth_of_a_simulated_ladder() -> None:
    rows = loss_ladder(np.random.default_rng(3))
    law, _ = lm_loss.fit(rows, 200, np.random.default_rng(0))
    found = loss_gaps(calibration_with(law))
    truth = float(size_ratio_bound(TRUTH))
    _, low, high = found.size_ratio_bound
    assert low is not None and high is not None and low < truth < high
    assert [size.block_params for size in found.sizes] == sorted(set(rows.block_params.tolist()))


def test_command_shows_tables_and_json(tmp_path: Path) -> None:
    rows = loss_ladder(np.random.default_rng(0), sizes=(8_336, 33_056, 131_648))
    law, _ = lm_loss.fit(rows, 20, np.random.default_rng(0))
    assert law is not None
    save(calibration_with(law), tmp_path / "c.json")
    shown = CliRunner().invoke(app, ["gaps", str(tmp_path / "c.json")])
    assert shown.exit_code == 0 and "up to a size ratio of" in shown.output
    assert "what repeats cost is imported" in shown.output
    told = CliRunner().invoke(app, ["gaps", str(tmp_path / "c.json"), "--json"])
    found = json.loads(told.stdout)
    assert len(found["gaps"]) == 3 and found["gaps"][0]["small_block_params"] == 8_336
    assert found["alpha"][0] == pytest.approx(law.values[2])


def test_a_size_in_few_digits_is_the_one_of_the_ladder() -> None:
    found = loss_gaps(calibration_with(law_of(CHINCHILLA)), large=1.004e6)
    assert [gap.small_block_params for gap in found.gaps] == [1e4, 1e5]
    assert {gap.large_block_params for gap in found.gaps} == {1e6}
