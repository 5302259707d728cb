"""The source law: known truth recovered, intervals that cover, the same whatever the names and the order."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))

from recovery_of_sources import Noise, fresh_cells, parameters, simulate, true_log_bits
from simulate import LADDER, simulate_measurements

from mixplan.documents import Calibration, Table, load, save
from mixplan.documents.calibration import FittedLaw
from mixplan.errors import InputError
from mixplan.laws.calibration import fit_calibration
from mixplan.laws.source import HELD_OUT, LARGEST, fit_sources
from mixplan.laws.source_forms import (
    ADDITIVE_EXPONENTIAL,
    ADDITIVE_POWER,
    FORMS,
    JOINT_OWN,
    JOINT_PRODUCT,
    JOINT_SUM,
    Form,
)
from mixplan.laws.source_predict import predict
from mixplan.laws.tables import calibration_summary, calibration_tables

LITTLE = Noise(0.002, 0.004, 0.002)
USUAL = Noise(0.01, 0.01, 0.005)


def fitted(table: Table, forms: tuple[Form, ...] = (JOINT_OWN,), draws: int = 100) -> FittedLaw:
    laws, said = fit_sources(table, draws, np.random.default_rng(0), forms)
    assert said == [] and len(laws) == 1
    return laws[0]


@pytest.fixture(scope="module")
def table() -> Table:
    return simulate(JOINT_OWN, USUAL, np.random.default_rng(1))


@pytest.fixture(scope="module")
def law(table: Table) -> FittedLaw:
    return fitted(table)


@pytest.mark.parametrize("form", FORMS.values(), ids=lambda form: form.name)
def test_bits_of_cells_that_no_run_measured(form: Form) -> None:
    found = fitted(simulate(form, LITTLE, np.random.default_rng(2)), (form,))
    for share, size, tokens, epochs in (
        (0.06, 25e3, 9e5, 0.9),
        (0.2, 5e4, 1.4e6, 4.7),
        (0.0, 7e4, 1.8e6, 0.0),
    ):
        truth = np.exp(true_log_bits(form, share, size, tokens, epochs))
        assert predict(found, share, size, tokens, epochs).bits[0] == pytest.approx(truth, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("form", [ADDITIVE_EXPONENTIAL, JOINT_OWN, JOINT_PRODUCT], ids=lambda form: form.name)
def test_the_true_form_is_chosen_by_what_was_left_out(form: Form) -> None:
    found = fitted(simulate(form, LITTLE, np.random.default_rng(3)), tuple(FORMS.values()))
    assert found.law == form.name
    for what in (HELD_OUT, LARGEST):
        scores = {name: found.settings[f"{what}[{name}]"] for name in FORMS}
        assert scores[form.name] >= max(scores.values()) - 0.1


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """benchmarks/law_recovery.py does this with 200 repetitions, three noise levels and two forms."""
    repetitions = 12
    inside: dict[str, list[bool]] = {"mean": [], "new": [], "parameters": []}
    widths: list[float] = []
    for repetition in range(repetitions):
        generator = np.random.default_rng([9, repetition])
        found = fitted(simulate(JOINT_OWN, USUAL, generator), draws=200)
        cells = fresh_cells(JOINT_OWN, found, USUAL, generator)
        for cell in list(cells.values())[:3]:
            inside["mean"].append(cell.mean_interval[0] <= cell.mean <= cell.mean_interval[1])
            inside["new"].append(cell.new_interval[0] <= cell.new <= cell.new_interval[1])
            widths.append(cell.new_interval[1] - cell.new_interval[0])
        for _, draws, truth in parameters(JOINT_OWN, found, USUAL).values():
            low, high = np.quantile(draws, [0.05, 0.95])
            inside["parameters"].append(low <= truth <= high)
    least = binom(3 * repetitions, 0.9).ppf(0.01) / (3 * repetitions)
    for what, held in inside.items():
        assert np.mean(held) >= least, (what, np.mean(held))
    # 90 % of the scatter alone is 3.29 of its standard deviations wide.
    scatter = 3.29 * float(np.linalg.norm(USUAL))
    assert scatter < np.median(widths) < 2 * scatter


def test_a_new_run_is_less_certain_than_the_mean_and_both_hold_the_forecast(law: FittedLaw) -> None:
    found = predict(law, np.array([0.0, 0.03, 0.3, 0.03]), np.array([9e3, 5e4, 5e4, 1e7]), 1e6, 0.5)
    assert (found.low < found.mean_low).all() and (found.mean_high < found.high).all()
    assert (found.mean_low <= found.bits).all() and (found.bits <= found.mean_high).all()


def test_forecasts_beyond_the_ladder_are_flagged_and_widen(law: FittedLaw) -> None:
    sizes = np.array([74_160.0, 3e5, 3e6, 3e7])
    found = predict(law, 0.05, sizes, 1.8e6, 1.0)
    assert (
        found.extrapolated[0] == []
        and "block_params 300K is 4.05× above the largest" in found.extrapolated[1][0]
    )
    width = np.log(found.mean_high / found.mean_low)
    assert (np.diff(width) > 0).all()
    assert (np.diff(found.bits) <= 0).all()
    more = predict(law, 0.6, 5e4, 3e6, 40.0).extrapolated[0]
    assert [one.split()[0] for one in more] == ["tokens", "share", "epochs"]


def test_every_draw_falls_beyond_the_ladder_too(law: FittedLaw) -> None:
    one = law.model_copy(update={"draws": []})
    for index in range(0, len(law.draws), 10):
        alone = one.model_copy(update={"draws": [law.draws[index]] * 30})
        grid = np.geomspace(1e3, 1e8, 40)
        for found in (
            predict(alone, 0.05, grid, 1e6, 1.0),
            predict(alone, 0.05, 3e4, grid * 100, 1.0),
            predict(alone, np.linspace(0, 1, 40), 3e4, 1e6, 1.0),
        ):
            assert (np.diff(found.bits) <= 1e-12).all()


def test_names_seeds_and_the_order_of_rows_change_nothing(table: Table, law: FittedLaw) -> None:
    order = np.random.default_rng(5).permutation(len(table))
    columns = {name: column[order] for name, column in table.columns.items()}
    renamed = {
        **columns,
        "run_id": np.array([f"z{str(name)[::-1]}" for name in columns["run_id"]], dtype=object),
        "seed": 7 - columns["seed"],
        "source": np.array(["other"] * len(order), dtype=object),
        "anchor": np.array(["other" if a == "manuals" else a for a in columns["anchor"]], dtype=object),
    }
    again = fitted(Table(renamed))
    np.testing.assert_allclose(again.values, law.values, rtol=1e-4)
    np.testing.assert_allclose(np.array(again.draws), np.array(law.draws), rtol=1e-3)
    assert again.subject == "other"


def test_only_ends_are_used_and_no_run_that_anchors_another_source(table: Table, law: FittedLaw) -> None:
    def copied(suffix: str, **columns: Any) -> dict[str, np.ndarray]:
        ids = np.array([f"{name}{suffix}" for name in table["run_id"]], dtype=object)
        changed = {name: np.full(len(table), value) for name, value in columns.items()}
        if "anchor" in columns:
            changed["anchor"] = changed["anchor"].astype(object)
        return {**table.columns, "run_id": ids, "bits_per_byte": table["bits_per_byte"] * 1.5,
                "nats_per_token": table["nats_per_token"] * 1.5, **changed}  # fmt: skip

    early = copied("", decayed=0.0)
    other = copied("-other", anchor="law", share=0.0, source_tokens=0.0, source_epochs=0.0)
    parts = (table.columns, early, other)
    both = Table({name: np.concatenate([part[name] for part in parts]) for name in table.columns})
    assert fitted(both).values == pytest.approx(law.values, rel=1e-6)


def test_without_the_column_decayed_the_last_row_of_a_run_counts(table: Table) -> None:
    rest = {name: column for name, column in table.columns.items() if name != "decayed"}
    found = fitted_with_reasons(Table(rest))
    assert found.rows == len(set(table["run_id"])) and "training lengths" in " ".join(found.warnings)


def fitted_with_reasons(table: Table) -> FittedLaw:
    return fit_sources(table, 30, np.random.default_rng(0), (JOINT_OWN,))[0][0]


def having(table: Table, keep: np.ndarray) -> Table:
    return table.where(keep)


def changed(table: Table, **columns: Any) -> Table:
    return Table({**table.columns, **columns})


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda t: having(t, t["block_params"] == 8_336), "1 size(s) of at least 2"),
        (lambda t: having(t, t["share"] == 0.04), "1 share(s) of at least 3"),
        (lambda t: having(t, (t["share"] == 0.04) | (t["share"] == 0)), "2 share(s) of at least 3"),
        (lambda t: changed(t, decayed=t["decayed"] * 0), "no row stands at the end"),
        (lambda t: changed(t, bits_per_byte=t["bits_per_byte"] * (1 + 3 * t["seed"])), "same unit"),
        (lambda t: changed(t, bits_per_byte=t["bits_per_byte"] * 10, nats_per_token=t["nats_per_token"] * 10),
         "where guessing costs 8"),
        (lambda t: Table({k: np.concatenate([v, v[:5]]) for k, v in t.columns.items()}), "stand twice"),
    ],
)  # fmt: skip
def test_rows_that_support_no_law_give_a_reason(table: Table, spoil: Any, says: str) -> None:
    laws, said = fit_sources(spoil(table), 30, np.random.default_rng(0), (JOINT_OWN,))
    assert laws == [] and len(said) == 1
    assert said[0].startswith("source manuals: ") and says in said[0] and "no law" in said[0]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda t: having(t, t["share"] > 0), "no run at share zero"),
        (lambda t: having(t, t["block_params"] < 2e4), "2 sizes do not determine"),
        (lambda t: having(t, t["tokens"] > 1.5e6), "1 training lengths do not determine"),
        (lambda t: having(t, t["seed"] == 0), "one seed"),
        (lambda t: changed(t, source_epochs=t["source_epochs"] / 100), "what repetition costs is imported"),
        (lambda t: changed(t, nats_per_token=t["bits_per_byte"] * np.log(2)), "bits per token"),
    ],
)
def test_what_cannot_be_said_is_said(table: Table, spoil: Any, says: str) -> None:
    assert says in " ".join(fitted_with_reasons(spoil(table)).warnings)


def test_a_source_never_repeated_keeps_the_whole_doubt_about_repetition(table: Table) -> None:
    found = fitted_with_reasons(changed(table, source_epochs=table["source_epochs"] / 100))
    draws = np.array(found.draws)[:, found.parameters.index("R")]
    assert np.quantile(draws, 0.1) < 9 and np.quantile(draws, 0.9) > 25


def test_below_the_smallest_share_nothing_is_claimed_without_a_run_at_zero(table: Table) -> None:
    found = fitted_with_reasons(having(table, table["share"] > 0))
    assert "share 0 is below the smallest" in predict(found, 0.0, 3e4, 1e6, 0.0).extrapolated[0][0]
    assert "e+13× below the smallest" in predict(found, 1e-15, 3e4, 1e6, 0.0).extrapolated[0][0]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"source_epochs": 0.0}, "source_epochs is 0"),
        ({"source_tokens": 0.0}, "no source_tokens were read"),
        ({"tokens": 1_000.0}, "more source_tokens than tokens"),
        ({"share": 0.9}, "not about share × tokens"),
        ({"bits_per_byte": 0.0}, "bits_per_byte must be above 0"),
    ],
)
def test_rows_that_contradict_each_other_are_refused(
    table: Table, columns: dict[str, float], says: str
) -> None:
    bad = changed(table, **{name: np.full(len(table), value) for name, value in columns.items()})
    with pytest.raises(InputError, match=says):
        fit_sources(bad, 30, np.random.default_rng(0))


def test_arguments_out_of_range_are_refused_together(law: FittedLaw) -> None:
    with pytest.raises(InputError) as caught:
        predict(law, np.array([0.1, 1.2]), 0.0, 1e6, np.nan)
    assert len(caught.value.problems) == 3
    with pytest.raises(InputError, match="known: "):
        predict(law.model_copy(update={"law": "of another version"}), 0.1, 1e4, 1e6, 1.0)


@pytest.mark.slow
def test_fit_stores_a_law_for_every_source(tmp_path: Path) -> None:
    generator = np.random.default_rng(4)
    shape: dict[str, Any] = {"seeds": 1, "sizes": (8_336, 33_056), "horizons": (462_848, 1_851_392)}
    first = simulate(ADDITIVE_POWER, USUAL, generator, **shape)
    second = simulate(JOINT_SUM, USUAL, generator, name="essays", **shape)
    both = Table({name: np.concatenate([first[name], second[name]]) for name in first.columns})
    rungs = dict(list(LADDER.items())[:3])
    measured = replace(simulate_measurements(rungs=rungs, checkpoints=3, seeds=1), sources=both)
    found = fit_calibration(measured, draws=20)
    assert [one.subject for one in found.sources] == ["essays", "manuals"]
    assert set(found.provenance["tables"]) == {"learning", "retention", "interference", "sources"}
    assert any("source essays: 2 sizes" in one for one in found.warnings)
    save(found, tmp_path / "calibration.json")
    assert load(tmp_path / "calibration.json", Calibration) == found
    titles = [shown.title for shown in calibration_tables(found)]
    assert sum(title.startswith("Source ") for title in titles) == 2
    assert all("draws" not in one for one in calibration_summary(found)["sources"])
    spoiled = changed(both, source_epochs=np.zeros(len(both)))
    with pytest.raises(InputError, match="source_epochs is 0"):
        fit_calibration(replace(measured, sources=spoiled), draws=20)
