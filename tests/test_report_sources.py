"""The figure of the team's own sources: what their share bought, and the fitted laws' numbers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from reporting import ATTACKS, calibration_of
from simulate import simulate_measurements

from mixplan.documents import Table, save, write_measurements
from mixplan.documents.calibration import FittedLaw
from mixplan.documents.measurements import TEXT_COLUMNS
from mixplan.documents.table import from_rows
from mixplan.report import find_inputs, render
from mixplan.report.figures import sources
from mixplan.report.figures.base import Sizes
from mixplan.report.text import NARROW

RUNGS = {"small": 8_336.0, "large": 33_056.0}
SHARES = (0.0, 0.01, 0.04)


def bits(size: float, share: float, tokens: float) -> float:
    """What a run measured: known, so that the figure can be read back."""
    return 3.0 - 0.1 * np.log10(size) - 10.0 * share + 1e5 / tokens


def measured(names: tuple[str, ...] = ("essays",), shares: tuple[float, ...] = SHARES) -> Table:
    rows = [
        {
            "run_id": f"{rung}-{share}-{seed}", "rung": rung, "block_params": size, "seed": seed,
            "tokens": tokens, "source": name, "share": share, "source_tokens": share * tokens,
            "source_epochs": 1.0, "nats_per_token": 1.0,
            "bits_per_byte": bits(size, share, tokens) + 0.01 * seed + 0.5 * share * (name == "letters"),
        }
        for rung, size in RUNGS.items()
        for share in shares
        for seed in (0, 1)
        for tokens in (1e5, 1e6)
        for name in names
    ]  # fmt: skip
    return from_rows(rows, TEXT_COLUMNS)


SIZES = Sizes(list(RUNGS.items()))


def law(subject: str = "essays") -> FittedLaw:
    return FittedLaw(
        law="joint, own tokens", subject=subject, formula="as simulated", parameters=["E", "S"],
        values=[1.5, 0.25], draws=[[1.4 + 0.002 * k, 0.2 + 0.001 * k] for k in range(101)], rows=12, runs=12,
    )  # fmt: skip


def test_the_finding_quotes_the_ends_of_runs_at_the_largest_size() -> None:
    figure = sources.figure(measured(), SIZES, None)
    before, after = (bits(RUNGS["large"], share, 1e6) + 0.005 for share in (0.0, 0.04))
    assert figure.finding == (
        f"From 0{NARROW}% to 4{NARROW}% of the tokens, essays went from {before:.2f} to {after:.2f} bits per "
        f"byte at 33.1{NARROW}K block parameters."
    )
    assert figure.body.count("<circle") == len(RUNGS) * len(SHARES) * 2  # ends of runs only
    assert figure.data is not None and "Fitted laws" not in figure.data


def test_of_several_sources_the_one_that_gains_most_is_named() -> None:
    figure = sources.figure(measured(("letters", "essays")), SIZES, None)
    assert "essays went from" in figure.finding and "the most of any source" in figure.finding
    assert figure.body.count("<svg") == 2


def test_one_share_says_nothing() -> None:
    assert "measured at one share only" in sources.figure(measured(shares=(0.01,)), SIZES, None).finding


def test_the_fitted_numbers_stand_with_their_intervals() -> None:
    calibration = calibration_of(simulate_measurements(seed=1)).model_copy(update={"sources": [law()]})
    figure = sources.figure(measured(), SIZES, calibration)
    assert figure.data is not None
    cells = re.findall(r"<td[^>]*>(.*?)</td>", figure.data)
    at = cells.index("E")
    assert cells[at - 1] == "joint, own tokens" and cells[at + 1 : at + 3] == ["1.5", "1.41 to 1.59"]
    gone = calibration.model_copy(update={"sources": [law("other")]})
    assert sources.figure(measured(), SIZES, gone).data == sources.figure(measured(), SIZES, None).data


@pytest.mark.parametrize("name", ["essays", *ATTACKS])
def test_the_page_has_it_and_hostile_names_stay_text(name: str, tmp_path: Path) -> None:
    base = simulate_measurements(seeds=1, checkpoints=2)
    write_measurements(replace(base, sources=measured((name,))), tmp_path / "measurements")
    calibration = calibration_of(simulate_measurements(seed=1, precision=6))
    save(calibration.model_copy(update={"sources": [law(name)]}), tmp_path / "calibration.json")
    page = render(find_inputs(tmp_path), None)
    assert 'id="sources"' in page and "Fitted laws of the sources" in page
    if name in ATTACKS:
        assert "<img" not in page and page.count("<script") == 1
