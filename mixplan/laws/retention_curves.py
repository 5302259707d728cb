"""Gain curves from the retention table, and what each says about its half-life.

An injection of a run is one curve: the mean gain over its probes, from the delay d₀ on at which the mean of
all curves peaks (right after a burst the gain may still grow, carried by the optimizer's momentum). Its
amplitude G and noise σ are its own and integrated out, so that no noisy maximum serves as the reference:

    y_j = G·kept(d_j; h) + N(0, σ²),   G flat, σ² scaled inverse χ² with 1 degree of freedom at NOISE²
    ln p(y | h) = const − ½ ln Σ kept² − m/2 · ln(NOISE² + Σ (y − Ĝ·kept)²)

A curve without a delay near d₀ has for G its gain where it was first measured, not a peak that it never saw:
flat in that, G would grow without bound, and the likelihood with it, the shorter the half-life.

Shape legend: m = delays of a curve, K = half-lives tried, C = curves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from mixplan.documents import Table
from mixplan.laws.retention_forms import relative_share

FloatArray = NDArray[np.float64]

SIGNIFICANCE = 2.0
"""An injection whose mean early gain is below this many standard errors over its probes gained nothing."""
MIN_DELAYS, EARLY = 3, 3
NOISE = 0.02
"""Noise of a mean gain as a share of the early gain, before the curve has spoken."""
STEP = 0.15
"""Of the first grid over ln half-life."""
OPEN = 3.0
"""Standard deviation of the prior on ln half-life around the middle of the measured delays (logarithmic)."""


@dataclass(frozen=True)
class Curve:
    """One injection of a run: delays ≥ d₀, mean gain over its probes as a share of its early mean; (m,)."""

    run: str
    block_params: float
    injected_at: float
    """Tokens seen before the burst."""
    delay: FloatArray
    gain: FloatArray


def read_curves(retention: Table, start: float) -> tuple[list[Curve], list[str]]:
    """The curves of all injections with a gain, in an order that no name decides, and the others' names."""
    curves, left_out = [], []
    for name, part in _injections(retention):
        delays, gains, errors = _mean_curve(part)
        after = delays >= start
        early = float(gains[after][:EARLY].mean()) if after.any() else 0.0
        error = float(np.nan_to_num(errors[after][:EARLY]).mean()) if after.any() else 0.0
        if after.sum() < MIN_DELAYS or early <= 0 or early < SIGNIFICANCE * error:
            left_out.append(name)
            continue
        size, at = float(part["block_params"][0]), float(part["injected_at_tokens"][0])
        curves.append(Curve(str(part["run_id"][0]), size, at, delays[after], gains[after] / early))
    return sorted(curves, key=_content), left_out


def _content(curve: Curve) -> tuple[float, float, tuple[float, ...]]:
    return curve.block_params, curve.injected_at, tuple(curve.gain)


def peak_delay(retention: Table) -> float:
    """d₀: the delay at which the mean of all curves, each as a share of its own mean size, peaks."""
    totals: dict[float, list[float]] = {}
    for _, part in _injections(retention):
        delays, gains, _ = _mean_curve(part)
        scale = np.abs(gains).mean() or 1.0
        for delay, gain in zip(delays, gains, strict=True):
            totals.setdefault(float(delay), []).append(float(gain / scale))
    most = max(len(values) for values in totals.values())
    common = {delay: np.sort(values).mean() for delay, values in totals.items() if 2 * len(values) >= most}
    return max(sorted(common), key=lambda delay: common[delay])


def _injections(retention: Table) -> Iterator[tuple[str, Table]]:
    """The rows of every injection of every run, with a name for it: the run's where it has only one."""
    for run_id in np.unique(retention["run_id"].astype(str)):
        own = retention.where(retention["run_id"].astype(str) == run_id)
        times = np.unique(own["injected_at_tokens"])
        for at in times:
            name = str(run_id) if len(times) == 1 else f"{run_id} at {at:g} tokens"
            yield name, own.where(own["injected_at_tokens"] == at)


def _mean_curve(part: Table) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Delays, mean gain over the probes, and its standard error (NaN with one probe); each (delays,)."""
    delays = np.unique(part["delay_tokens"])
    groups = [np.sort(part["gain"][part["delay_tokens"] == delay]) for delay in delays]
    errors = [g.std(ddof=1) / np.sqrt(len(g)) if len(g) > 1 else np.nan for g in groups]
    return delays, np.array([g.mean() for g in groups]), np.array(errors)


def log_likelihood(
    form: str, shape: float, log_half_life: FloatArray, curve: Curve, start: float, step: float
) -> FloatArray:
    """ln p(y | half-life) with amplitude and noise integrated out, comparable between forms; shape (K,)."""
    kept = relative_share(form, np.exp(log_half_life)[:, None], shape, curve.delay, start, step)  # (K, m)
    size = (kept**2).sum(axis=1)
    left = np.maximum((curve.gain**2).sum() - (kept @ curve.gain) ** 2 / size, 0.0)
    m = len(curve.gain)
    constant = 0.5 * np.log(NOISE**2) + gammaln(m / 2) - gammaln(0.5) - 0.5 * (m - 1) * np.log(np.pi)
    return np.asarray(constant - 0.5 * np.log(size) - 0.5 * m * np.log(NOISE**2 + left))


def misfit(form: str, shape: float, half_life: float, curve: Curve, start: float, step: float) -> float:
    """Mean squared misfit at the best amplitude, in shares of the early gain squared."""
    kept = relative_share(form, half_life, shape, curve.delay, start, step)
    return float(np.mean((curve.gain - kept * (kept @ curve.gain) / (kept @ kept)) ** 2))


def prior_of(curves: list[Curve], start: float) -> float:
    """Middle of ln half-life before anything is known: between the shortest and longest delays from d₀ on."""
    since = np.concatenate([curve.delay[curve.delay > start] - start for curve in curves])
    return float(0.5 * (np.log(since.min()) + np.log(since.max())))


def half_life_of(
    form: str, shape: float, curve: Curve, constants: tuple[float, float], centre: float
) -> tuple[float, float, float]:
    """What a curve says of its ln half-life as a normal factor: mean, standard deviation, log mass.

    The likelihood is multiplied with a wide normal prior, N(centre, OPEN²), so that a curve that never
    decays has a finite posterior; mean and standard deviation are those of the posterior with the prior
    divided out again, and the log mass makes the factor's integral over the prior the likelihood's own.
    """
    wide = np.arange(centre - 4 * OPEN, centre + 4 * OPEN, STEP)
    mean, sd, _ = _moments(form, shape, curve, constants, centre, wide)
    reach = 8 * max(sd, 0.5 * STEP)
    mean, sd, log_mass = _moments(
        form, shape, curve, constants, centre, np.linspace(mean - reach, mean + reach, 121)
    )
    precision = max(sd**-2 - OPEN**-2, 1e-4)
    site = (mean * sd**-2 - centre * OPEN**-2) / precision if sd**-2 - OPEN**-2 > 1e-4 else centre
    total = precision**-1 + OPEN**2
    overlap = -0.5 * (np.log(2 * np.pi * total) + (site - centre) ** 2 / total)
    return site, precision**-0.5, log_mass - overlap


def _moments(
    form: str, shape: float, curve: Curve, constants: tuple[float, float], centre: float, grid: FloatArray
) -> tuple[float, float, float]:
    """Mean, standard deviation and log mass of likelihood × prior over a grid of even steps."""
    log_p = log_likelihood(form, shape, grid, curve, *constants)
    log_p = log_p - 0.5 * ((grid - centre) / OPEN) ** 2 - np.log(OPEN * np.sqrt(2 * np.pi))
    log_mass = float(np.logaddexp.reduce(log_p))
    weight = np.exp(log_p - log_mass)
    mean = float(weight @ grid)
    sd = float(np.sqrt(weight @ (grid - mean) ** 2))
    return mean, sd, log_mass + float(np.log(grid[1] - grid[0]))
