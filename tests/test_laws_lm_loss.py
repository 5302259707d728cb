"""The LM-loss law: forecasts are recovered, the choice of rows is right; limits are said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from loss_ladders import HORIZONS as LENGTHS
from loss_ladders import NOISES as SCATTER
from loss_ladders import SIZES, TRUTH, loss_ladder
from simulate import LADDER, LM_LOSS, simulate_measurements, true_lm_loss

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw
from mixplan.errors import InputError
from mixplan.laws import lm_loss
from mixplan.laws.evidence import Evidence, collect_evidence
from mixplan.laws.loss_backtest import backtest_lm_loss
from mixplan.laws.loss_posterior import NOISES
from mixplan.laws.loss_rows import LossRows

HORIZONS = (8.192e5, 1.6384e6, 3.2768e6)


def evidence(**simulation: Any) -> Evidence:
    simulation = {"intercepts": {("comparison", 8): 0.0}, "frequencies": (1e-3,), **simulation}
    return collect_evidence(simulate_measurements(**simulation).learning)


def fitted(found: Evidence, draws: int = 40) -> tuple[FittedLaw | None, list[str]]:
    rows = lm_loss.loss_rows(found)
    assert rows is not None
    return lm_loss.fit(rows, draws, np.random.default_rng(0))


@pytest.mark.parametrize("horizons", [HORIZONS, HORIZONS[-1:]])
def test_losses_are_recovered_inside_and_one_rung_up(horizons: tuple[float, ...]) -> None:
    law, problems = fitted(evidence(horizons=horizons))
    assert law is not None and problems == []
    for size in (*LADDER.values(), 6e5):
        found = lm_loss.predict(np.array(law.values), np.array(size), np.array(3.2768e6))
        assert found == pytest.approx(true_lm_loss(size, 3.2768e6), rel=0.006)


def test_interval_of_the_law_covers_truth_out_of_range() -> None:
    law, _ = fitted(evidence(horizons=HORIZONS), draws=100)
    assert law is not None
    drawn = [float(lm_loss.predict(np.array(d), np.array(5e6), np.array(3.2768e6))) for d in law.draws]
    low, high = np.quantile(drawn, [0.01, 0.99])
    assert low <= true_lm_loss(5e6, 3.2768e6) <= high


def test_several_training_lengths_use_final_checkpoints_only() -> None:
    law, _ = fitted(evidence(horizons=HORIZONS))
    assert law is not None and law.parameters == [*lm_loss.PARAMETERS, *NOISES]
    assert law.rows == 6 * 2 * 3


def test_one_training_length_uses_late_checkpoints_with_an_offset() -> None:
    law, _ = fitted(evidence())
    assert law is not None and lm_loss.BEFORE_DECAY in law.parameters
    assert law.values[law.parameters.index(lm_loss.BEFORE_DECAY)] == pytest.approx(
        LM_LOSS["before_decay"], abs=0.02
    )
    assert law.ranges["tokens"].low == pytest.approx(0.2 * 3.2768e6)
    assert any("too few training lengths" in w for w in law.warnings)


def test_one_outlier_does_not_move_the_law() -> None:
    found = evidence(horizons=HORIZONS)
    rows = lm_loss.loss_rows(found)
    assert rows is not None
    loss = rows.loss.copy()
    loss[int(np.argmax(rows.finished))] *= 1.5
    spoilt = replace(rows, loss=loss)
    law, _ = lm_loss.fit(spoilt, 20, np.random.default_rng(0))
    assert law is not None
    found_loss = lm_loss.predict(np.array(law.values), np.array(131_648.0), np.array(3.2768e6))
    assert found_loss == pytest.approx(true_lm_loss(131_648, 3.2768e6), rel=0.01)


@pytest.mark.parametrize(
    ("simulation", "reason"),
    [({"rungs": {"33k": 33_056}}, "one size only"), ({"checkpoints": 1}, "one token count only")],
)
def test_one_size_or_one_length_gives_no_law(simulation: dict[str, object], reason: str) -> None:
    law, problems = fitted(evidence(**simulation))
    assert law is None and reason in problems[0]


def test_two_sizes_leave_the_exponent_to_the_prior_and_say_so() -> None:
    law, _ = fitted(evidence(rungs={"8k": 8_336, "132k": 131_648}))
    assert law is not None and any("2 sizes do not determine alpha" in w for w in law.warnings)


def test_size_and_tokens_that_grow_together() -> None:
    parts = [
        simulate_measurements(
            seed=i, rungs={name: size}, seeds=1, horizons=(20 * size,), checkpoints=1
        ).learning
        for i, (name, size) in enumerate(LADDER.items())
    ]
    joined = Table({name: np.concatenate([part[name] for part in parts]) for name in parts[0].columns})
    law, _ = fitted(collect_evidence(joined))
    assert law is not None and any("cannot be told apart" in w for w in law.warnings)


def test_table_without_losses() -> None:
    learning = simulate_measurements(rungs={"8k": 8_336}, seeds=1, checkpoints=2).learning
    without = Table({name: column for name, column in learning.columns.items() if name != "lm_loss"})
    empty = Table({**learning.columns, "lm_loss": np.full(len(learning), np.nan)})
    assert lm_loss.loss_rows(collect_evidence(without)) is None
    assert lm_loss.loss_rows(collect_evidence(empty)) is None


def test_two_losses_at_one_step_are_refused() -> None:
    learning = simulate_measurements(rungs={"8k": 8_336}, seeds=1, checkpoints=2).learning
    losses = learning["lm_loss"].copy()
    losses[0] += 0.1
    with pytest.raises(InputError, match="lm_loss must be one number per run and step; 1 have several"):
        lm_loss.loss_rows(collect_evidence(Table({**learning.columns, "lm_loss": losses})))


def law_of(rows: LossRows, draws: int = 100, seed: int = 0) -> FittedLaw:
    law, problems = lm_loss.fit(rows, draws, np.random.default_rng(seed))
    assert law is not None, problems
    return law


def parameter(law: FittedLaw, name: str) -> tuple[float, float, float]:
    """Estimate and 90 % interval."""
    at = law.parameters.index(name)
    return law.values[at], *np.quantile([draw[at] for draw in law.draws], [0.05, 0.95])


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    # The full study of 200 repetitions and several noises: benchmarks/law_recovery.md.
    cells = np.array([[5e4, 2.6e6], [SIZES[0], LENGTHS[-1]], [2.25 * SIZES[-1], LENGTHS[-1]]])
    held: dict[str, list[bool]] = {"mean": [], "new run": [], "parameters": []}
    for repetition in range(60):
        generator = np.random.default_rng(repetition)
        alpha, beta = generator.uniform(0.15, 0.6, size=2)
        truth = np.array([1.2, 0.5 * 5e4**alpha, alpha, 0.4 * 2.6e6**beta, beta])
        four = repetition % 2 == 0
        rows = loss_ladder(generator, truth, sizes=SIZES[:4] if four else SIZES, seeds=2 if four else 3)
        law = law_of(rows)
        told = lm_loss.forecast(law, cells[:, 0], cells[:, 1])
        mean = lm_loss.predict(truth, cells[:, 0], cells[:, 1]) * np.exp(generator.normal(0, SCATTER[2], 3))
        new = mean * np.exp(generator.normal(0, np.hypot(*SCATTER[:2]), 3))
        held["mean"] += ((told.low <= mean) & (mean <= told.high)).tolist()
        held["new run"] += ((told.run_low <= new) & (new <= told.run_high)).tolist()
        for name, value in zip(lm_loss.PARAMETERS, truth, strict=True):
            _, low, high = parameter(law, name)
            held["parameters"].append(low <= value <= high)
    for what, inside in held.items():
        assert 0.83 <= np.mean(inside) <= 0.97, what


def test_scatter_of_seeds_is_told_from_that_of_single_losses() -> None:
    rows = loss_ladder(np.random.default_rng(2), seeds=12, noises=(0.002, 0.01, 0.0))
    law = law_of(rows)
    for name, truth in (("noise", 0.002), ("run_noise", 0.01)):
        estimate, low, high = parameter(law, name)
        assert low < truth < high and estimate == pytest.approx(truth, rel=0.25)


def test_a_new_run_scatters_more_than_the_mean_and_both_hold_the_estimate() -> None:
    for seed in range(5):
        law = law_of(loss_ladder(np.random.default_rng(seed), sizes=SIZES[:4]))
        told = lm_loss.forecast(law, [1e4, 5e4, 1e6], [1e6, 5e6, 2e7])
        assert (told.run_low <= told.low).all() and (told.high <= told.run_high).all()
        assert told.run_low[1] < told.low[1] and told.high[1] < told.run_high[1]
        assert ((told.low < told.loss) & (told.loss < told.high)).all()


def test_intervals_widen_with_distance_and_losses_fall_with_size_and_tokens() -> None:
    law = law_of(loss_ladder(np.random.default_rng(0)))
    far = lm_loss.forecast(law, np.geomspace(3e5, 1e10, 8), np.full(8, 7e6))
    long = lm_loss.forecast(law, np.full(8, 1e5), np.geomspace(7e6, 1e12, 8))
    for told in (far, long):
        assert (np.diff(told.loss) < 0).all() and (np.diff((told.high - told.low) / told.loss) > 0).all()


def test_common_share_and_repeats_are_discounted_as_simulated() -> None:
    rows = loss_ladder(
        np.random.default_rng(2), shares=(1.0, 0.4), unique_tokens=5e5, repetition_constant=6.0, seeds=3
    )
    law = law_of(rows)
    _, low, high = parameter(law, "repetition_constant")
    assert low < 6.0 < high
    told = lm_loss.forecast(law, 33_056.0, 7.3728e6, common_share=0.4, unique_tokens=5e5)
    repeats = 0.4 * 7.3728e6 / 5e5 - 1
    effective = 5e5 + 5e5 * 6.0 * (1 - np.exp(-repeats / 6.0))
    assert told.loss[0] == pytest.approx(float(lm_loss.predict(TRUTH, 33_056.0, effective)), rel=0.01)
    assert told.extrapolated == [[]]
    assert told.loss[0] > lm_loss.forecast(law, 33_056.0, 7.3728e6, common_share=0.4).loss[0]


def test_without_repeats_their_cost_is_imported_and_flagged() -> None:
    law = law_of(loss_ladder(np.random.default_rng(0), unique_tokens=1e8))
    assert law.settings["repetition_constant"] == 15.39
    assert any("no run repeats common data" in w and "imported" in w for w in law.warnings)
    told = lm_loss.forecast(law, 5e4, 4e6, unique_tokens=[1e6, 1e9])
    assert "common data is repeated" in told.extrapolated[0][0] and told.extrapolated[1] == []
    assert told.loss[0] > told.loss[1]


def test_shares_come_from_the_sources_table() -> None:
    learning = simulate_measurements(rungs={"8k": 8_336, "19k": 18_648}, checkpoints=2).learning
    run = str(np.unique(learning["run_id"])[0])
    rows = [(run, "notes", 0.25), (run, "mail", 0.15), (run, "mail", 0.15), ("a run elsewhere", "notes", 1.0)]
    names = ("run_id", "source", "share")
    sources = Table({
        name: np.array(column, dtype=object if name != "share" else float)
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    })  # fmt: skip
    found = lm_loss.loss_rows(collect_evidence(learning), sources, 5e6)
    assert found is not None and found.unique_tokens == 5e6
    assert found.common_share[found.run == 0] == pytest.approx(0.6)
    assert (found.common_share[found.run != 0] == 1.0).all()
    for share, reason in ((0.99, "read sources only"), (0.3, "must have one share in a run")):
        changed = Table({**sources.columns, "share": np.array([0.25, share, 0.15, 1.0])})
        if share == 0.99:
            changed.columns["share"][2] = share
        with pytest.raises(InputError, match=reason):
            lm_loss.loss_rows(collect_evidence(learning), changed)


def test_order_of_rows_and_names_of_runs_change_nothing() -> None:
    rows = loss_ladder(np.random.default_rng(0))
    shuffled = rows.where(np.random.default_rng(1).permutation(len(rows.loss)))
    renamed = np.random.default_rng(2).permutation(int(rows.run.max()) + 1)
    assert law_of(rows) == law_of(replace(shuffled, run=renamed[shuffled.run]))


def test_losses_in_bits_are_named_and_left_out() -> None:
    rows = loss_ladder(np.random.default_rng(0))
    mixed = replace(rows, loss=np.where(rows.run == 3, rows.loss / np.log(2), rows.loss))
    law = law_of(mixed)
    assert law.rows == len(rows.loss) - 4 and law.runs == 11
    assert any("4 of 48 losses lie far from all others" in w and "18.6K" in w for w in law.warnings)
    told = lm_loss.forecast(law, 5e4, 3e6)
    assert told.loss[0] == pytest.approx(float(lm_loss.predict(TRUTH, 5e4, 3e6)), rel=0.01)


def test_sums_instead_of_means_are_refused() -> None:
    learning = simulate_measurements(rungs={"8k": 8_336}, seeds=1, checkpoints=2).learning
    summed = Table({**learning.columns, "lm_loss": learning["lm_loss"] * 128})
    with pytest.raises(InputError, match="must be in nats per token, below 20"):
        lm_loss.loss_rows(collect_evidence(summed))


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (lambda rows: np.random.default_rng(0).uniform(1, 4, len(rows.loss)), "losses contradict each other"),
        (lambda rows: 2 + 0.1 * np.log(rows.block_params), "does not fall with size"),
        (lambda rows: 2 + 0.1 * np.log(rows.tokens), "does not fall with training tokens"),
        (lambda rows: np.full(len(rows.loss), 2.0), "do not determine alpha"),
    ],
)
def test_losses_that_no_such_law_fits_are_said_to_be(loss: Any, reason: str) -> None:
    rows = loss_ladder(np.random.default_rng(0))
    law = law_of(replace(rows, loss=loss(rows)))
    assert any(reason in w for w in law.warnings)
    assert np.isfinite(law.values).all() and np.isfinite(law.draws).all()


@pytest.mark.parametrize("last", [0.30, 0.20, 0.05])
def test_losses_that_fall_faster_than_a_power_of_size_keep_a_floor_above_zero(last: float) -> None:
    """Straight in ln N, they would pull E below 0, where there is no density to start from."""
    sizes, lengths = np.array([2.0, 3.0, 4.0, 6.0, 8.0]), np.array([2e4, 5e4, 1e5, 4e5])
    size, tokens = (axis.ravel() for axis in np.meshgrid(np.repeat(sizes, 2), lengths, indexing="ij"))
    fallen = np.log(size / 2.0) / np.log(4.0)
    loss = 0.6 - (0.6 - last) * fallen + 0.4 * np.exp(-tokens / 1e4)
    run = np.repeat(np.arange(10), len(lengths))
    law = law_of(LossRows(run, size, tokens, loss, np.ones(len(run), dtype=bool), np.ones(len(run)), np.inf))
    floor = law.parameters.index("E")
    assert all(0.0 < draw[floor] < 0.6 for draw in [law.values, *law.draws])
    found = lm_loss.forecast(law, np.array([8.0, 16.0]), 4e5)
    assert np.all(found.run_low > 0.0) and found.run_low[0] < last < found.run_high[0]


def test_a_share_of_nothing_and_an_older_law_are_refused() -> None:
    law = law_of(loss_ladder(np.random.default_rng(0)), draws=20)
    with pytest.raises(InputError, match="common_share must lie above 0 and at most at 1, not at 0"):
        lm_loss.forecast(law, 5e4, 3e6, common_share=0.0)
    older = law.model_copy(
        update={"parameters": list(lm_loss.PARAMETERS), "values": law.values[:5], "draws": []}
    )
    with pytest.raises(InputError, match="lacks noise, run_noise, size_noise"):
        lm_loss.forecast(older, 5e4, 3e6)
    without = lm_loss.forecast(law.model_copy(update={"draws": []}), 5e4, 3e6)
    assert np.isfinite(without.loss).all() and np.isnan(without.low).all()


def test_backtest_predicts_every_larger_size() -> None:
    rows = loss_ladder(np.random.default_rng(4), sizes=SIZES[:5])
    found = backtest_lm_loss(rows, 100, 0)
    counts = {k: sum(one.fitted_sizes == k for one in found) for k in (2, 3, 4)}
    assert counts == {2: 24, 3: 16, 4: 8}
    assert {one.block_params for one in found if one.fitted_sizes == 4} == {SIZES[4]}
    ahead = [one for one in found if one.fitted_sizes == 4]
    assert all(abs(one.relative_error) < 0.03 for one in ahead)
    assert np.mean([one.inside for one in ahead]) >= 0.75
    assert backtest_lm_loss(loss_ladder(np.random.default_rng(4), sizes=SIZES[:2]), 20, 0) == []
