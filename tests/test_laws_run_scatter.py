"""Scatter between and within runs: the likelihood is the normal one, few runs give wide tails."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal, t

from mixplan.laws.run_scatter import Estimates, posterior

PRIOR_MEAN, PRIOR_SD = np.array([1.0, 0.0]), np.array([3.0, 2.0])


def estimates(
    seed: int, runs: int = 6, each: int = 3, between: float = 0.5, within: float = 0.3, error: float = 0.2
) -> Estimates:
    generator = np.random.default_rng(seed)
    run = np.repeat(np.arange(runs), each)
    x = np.repeat(np.linspace(-1, 1, runs), each)
    errors = error * generator.uniform(0.5, 1.5, len(run))
    noise = between * generator.normal(size=runs)[run] + np.hypot(within, errors) * generator.normal(
        size=len(run)
    )
    return Estimates(2.0 + 0.7 * x + noise, errors, np.column_stack([np.ones(len(x)), x]), run)


def direct(given: Estimates, between: float, within: float) -> float:
    """log p(estimates | τ, ω) from the whole covariance matrix."""
    same = (given.run[:, None] == given.run).astype(float)
    covariance = np.diag(within**2 + given.error**2) + between**2 * same
    covariance += given.design @ np.diag(PRIOR_SD**2) @ given.design.T
    return float(multivariate_normal(given.design @ PRIOR_MEAN, covariance).logpdf(given.mean))


@pytest.mark.parametrize("each", [1, 3])
def test_the_likelihood_is_that_of_the_whole_covariance_matrix(each: int) -> None:
    given = estimates(0, each=each)
    found = posterior(given, PRIOR_MEAN, PRIOR_SD)
    for g in range(0, len(found.log_weight), 7):
        expected = direct(given, found.grid.between[g], found.grid.within[g])
        assert found.log_weight[g] - found.grid.log_prior[g] == pytest.approx(expected, abs=1e-8)


def test_coefficients_given_the_scatter_are_generalised_least_squares() -> None:
    given = estimates(1)
    found = posterior(given, PRIOR_MEAN, np.array([1e4, 1e4]))
    g = len(found.weight) // 2
    same = (given.run[:, None] == given.run).astype(float)
    covariance = np.diag(found.grid.within[g] ** 2 + given.error**2) + found.grid.between[g] ** 2 * same
    weighted = given.design.T @ np.linalg.inv(covariance)
    expected = np.linalg.solve(weighted @ given.design, weighted @ given.mean)
    assert np.allclose(found.centre[g], expected, rtol=1e-5)
    assert np.allclose(found.root[g] @ found.root[g].T, np.linalg.inv(weighted @ given.design), rtol=1e-5)


@pytest.mark.parametrize("runs", [6, 18])
def test_without_errors_the_slope_has_the_tails_of_students_t(runs: int) -> None:
    """Widths of the 90 % interval against (runs − 2) degrees of freedom."""
    ratios = []
    for seed in range(10):
        given = estimates(seed, runs, 1, error=1e-6)
        x = given.design[:, 1]
        left = given.mean - np.polyval(np.polyfit(x, given.mean, 1), x)
        wide = 2 * t.ppf(0.95, runs - 2) * np.sqrt((left @ left) / (runs - 2) / (x @ x))
        drawn = posterior(given, PRIOR_MEAN, np.array([1e3, 1e3])).draw(4000, np.random.default_rng(seed))
        ratios.append(np.ptp(np.quantile(drawn[:, 1], [0.05, 0.95])) / wide)
    assert np.median(ratios) == pytest.approx(1.0, abs=0.06)


def test_scatter_between_and_within_runs_is_told_apart() -> None:
    for between, within in ((0.6, 0.1), (0.1, 0.6)):
        found = posterior(estimates(0, 60, 4, between, within, 0.1), PRIOR_MEAN, PRIOR_SD)
        tau, omega = found.medians()
        assert tau == pytest.approx(between, rel=0.3, abs=0.08)
        assert omega == pytest.approx(within, rel=0.3, abs=0.08)
        drawn = found.draw(2000, np.random.default_rng(0))
        for truth, column in ((0.7, 1), (between, 2), (within, 3)):
            low, high = np.quantile(drawn[:, column], [0.005, 0.995])
            assert low <= truth <= high


def test_evidence_of_a_part_and_of_the_whole_compare_on_one_grid() -> None:
    """A run that lies where the others say is more likely than one that lies elsewhere."""
    given = estimates(2, between=0.1, within=0.1, error=0.05)
    lost = given.run == 0
    scores = []
    for shift in (0.0, 5.0):
        moved = Estimates(given.mean + shift * lost, given.error, given.design, given.run)
        whole = posterior(moved, PRIOR_MEAN, PRIOR_SD)
        rest = posterior(moved.where(~lost), PRIOR_MEAN, PRIOR_SD, whole.grid)
        scores.append(whole.log_evidence - rest.log_evidence)
    assert scores[0] > scores[1] + 3
