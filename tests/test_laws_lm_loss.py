"""The LM-loss law: forecasts are recovered, the choice of rows is right; limits are said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from simulate import LADDER, LM_LOSS, simulate_measurements, true_lm_loss

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw
from mixplan.errors import InputError
from mixplan.laws import lm_loss
from mixplan.laws.evidence import Evidence, collect_evidence
from mixplan.laws.loss_posterior import NOISES

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
