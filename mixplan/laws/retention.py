"""The retention law: the share of a gain that is left falls linearly in the logarithm of the delay.

    kept(delay) = 1 − a(N)·ln(delay ÷ peak delay),   a(N) = a₀ + a₁·ln(N/N₀)      (after arXiv 2406.11813)

The gain of a burst keeps growing for some steps after it, carried by the optimizer's momentum; the law starts
at that peak. Delays are in training tokens, N in block parameters, gains in nats.

Shape legend: R = runs used, D = draws, m = delays from the peak on.
"""

from __future__ import annotations

import numpy as np

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw, Range
from mixplan.laws.bootstrap import line, line_draws, rounded, run_weights
from mixplan.laws.evidence import FloatArray

NAME = "log-linear forgetting"
RATE, RATE_PER_LOG_PARAMS, LOG_PEAK = "rate", "rate_per_log_params", "log_peak_delay_tokens"
CENTRE = "centre_log_block_params"
SIGNIFICANCE = 2.0
"""A probe whose fitted peak gain is below this many of its standard errors has gained nothing to forget."""
MIN_DELAYS = 3


def fit(retention: Table, draws: int, generator: np.random.Generator) -> tuple[FittedLaw | None, list[str]]:
    """Fit the law; None, with the reason among the warnings, when no probe shows a gain.

    Per run, the peak is that of the mean curve over its probe tasks (a single task's noise would pick its own
    lucky point). From there on each task's gains are a straight line in ln(delay), whose height at the peak
    is its peak gain; the run's forgetting rate is −(Σ slopes) ÷ (Σ heights). Bootstrap draws weight whole
    runs.
    """
    run_ids = np.unique(retention["run_id"].astype(str))
    sizes, rates, peaks, residuals = [], [], [], []
    rows = used_runs = left_out = 0
    for run_id in run_ids:
        part = retention.where(retention["run_id"].astype(str) == run_id)
        peak, lines, out, misfit = _run_lines(part)
        left_out += out
        if not lines:
            continue
        heights, slopes = np.array(lines).T
        rates.append(-slopes.sum() / heights.sum())
        sizes.append(np.log(part["block_params"][0]))
        peaks.append(np.log(peak))
        residuals += misfit
        rows += len(part)
        used_runs += 1
    warnings = []
    if left_out:
        warnings.append(
            f"retention: {left_out} probe(s) left out: no gain to speak of at the peak (below "
            f"{SIGNIFICANCE:g} standard errors), or fewer than {MIN_DELAYS} delays from the peak on"
        )
    if not used_runs:
        return None, [
            *warnings,
            "retention: no probe gained anything, so nothing can be said about forgetting",
        ]
    x = np.array(sizes)
    centre = float(x.mean())
    if np.ptp(x) < 1e-9:
        warnings.append(
            "retention: one size only, so its change with size cannot be said; it is held constant"
        )
    if used_runs < 3:
        warnings.append(f"retention: {used_runs} runs with a gain; too few for intervals")
    values, drawn = _lines(x - centre, np.array(rates), np.array(peaks), draws, generator)
    return (
        FittedLaw(
            law=NAME,
            formula="kept = 1 − (rate + rate_per_log_params·(ln(block_params) − centre))·"
            "(ln(delay_tokens) − log_peak_delay_tokens)",
            source="arXiv 2406.11813: R(t2) − R(t1) = −a·log(t2/t1)",
            parameters=[RATE, RATE_PER_LOG_PARAMS, LOG_PEAK],
            values=values,
            draws=drawn,
            ranges={
                "block_params": Range(low=float(np.exp(x.min())), high=float(np.exp(x.max()))),
                "delay_tokens": Range(
                    low=float(np.exp(min(peaks))), high=float(retention["delay_tokens"].max())
                ),
            },
            settings={CENTRE: centre},
            rows=rows,
            runs=used_runs,
            residual=float(np.sqrt(np.mean(np.square(residuals)))),
            warnings=warnings,
        ),
        [],
    )


def rate(law: FittedLaw, block_params: float) -> FloatArray:
    """Forgetting rate a(N) of the point estimate and, after it, of every draw; shape (1 + D,)."""
    parameters = np.array([law.values, *law.draws])
    return parameters[:, 0] + parameters[:, 1] * (np.log(block_params) - law.settings[CENTRE])


def kept_until(law: FittedLaw, block_params: float, kept: float) -> FloatArray:
    """Delay in tokens at which `kept` of the peak gain is left, point estimate first; infinite where nothing
    is forgotten; shape (1 + D,). kept = 0.5 gives the half-life, 0 the longest interval at which a gain
    accumulates.
    """
    parameters = np.array([law.values, *law.draws])
    speed = rate(law, block_params)
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(
            speed > 0, np.exp(parameters[:, 2] + (1.0 - kept) / np.maximum(speed, 1e-300)), np.inf
        )


def _lines(
    x: FloatArray, rates: FloatArray, peaks: FloatArray, draws: int, generator: np.random.Generator
) -> tuple[list[float], list[list[float]]]:
    """Point estimate and draws of the three parameters; x, rates, peaks have shape (R,)."""
    sampled = run_weights(len(x), line_draws(len(x), draws), generator)
    weights = np.vstack([np.ones(len(x)), sampled])
    fitted = line(x, rates, weights)
    peak = weights @ peaks / weights.sum(axis=1)
    table = np.column_stack([fitted, peak])
    return table[0].tolist(), rounded(table[1:])


def _run_lines(part: Table) -> tuple[float, list[tuple[float, float]], int, list[float]]:
    """One run's peak delay, (height, slope) of probes with a gain, how many had none, misfits ÷ height."""
    curves = _curves(part)
    if not curves:
        return np.nan, [], len(set(part["task"])), []
    peak = _peak_delay(curves)
    lines: list[tuple[float, float]] = []
    misfits: list[float] = []
    for curve in curves:
        after = np.array([(np.log(delay / peak), gain) for delay, gain in curve.items() if delay >= peak])
        if len(after) < MIN_DELAYS:
            continue
        u, gain = after.T
        height, slope = line(u, gain, np.ones((1, len(u))))[0]
        misfit = gain - height - slope * u
        noise = misfit @ misfit / (len(u) - 2)
        error = np.sqrt(noise * (1 / len(u) + u.mean() ** 2 / ((u - u.mean()) ** 2).sum()))
        if height > 0 and height >= SIGNIFICANCE * error:
            lines.append((float(height), float(slope)))
            misfits += (misfit / height).tolist()
    return peak, lines, len(set(part["task"])) - len(lines), misfits


def _curves(part: Table) -> list[dict[float, float]]:
    """Mean gain by delay > 0 (a logarithm follows) of every probe task that has one, delays ascending."""
    curves = []
    for task in sorted(set(part["task"])):
        rows = (part["task"] == task) & (part["delay_tokens"] > 0)
        delays = np.unique(part["delay_tokens"][rows]).tolist()
        means = [float(part["gain"][rows & (part["delay_tokens"] == delay)].mean()) for delay in delays]
        curves.append(dict(zip(delays, means, strict=True)))
    return [curve for curve in curves if curve]


def _peak_delay(curves: list[dict[float, float]]) -> float:
    """Delay with the largest mean gain, among those that at least half of the probes were measured at."""
    values: dict[float, list[float]] = {}
    for curve in curves:
        for delay, gain in curve.items():
            values.setdefault(delay, []).append(gain)
    common = {delay: gains for delay, gains in values.items() if 2 * len(gains) >= len(curves)}
    return max(common or values, key=lambda delay: float(np.mean(values[delay])))
