"""The retention law: how much of a burst's gain is left after a delay, by size.

    gain(d) = G_injection · kept(d; h(N)),   h(N) = H·(N/N₀)^b   (half-life in tokens)
    exponential:  kept = 2^(−(d − d₀)/h)
    log-linear:   kept = 1 − ½·ln((d + s)/(d₀ + s)) ÷ ln((h + d₀ + s)/(d₀ + s))    (after arXiv 2406.11813)

Every injection of a run has an amplitude G of its own, so that no noisy maximum serves as the reference.
Measurements made while the learning rate decays at the end of a run are left out. d₀ is where the
mean of all curves peaks: right after a burst the gain may still grow, carried by the optimizer's momentum. s
keeps the logarithm finite: the shortest delay above 0 where d₀ is 0, else 0. N block parameters. Of the two
forms the one that describes left-out runs better is kept; both errors are stored.

Shape legend: R = runs used, m = delays from d₀ on, D = draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw, Range
from mixplan.laws.bootstrap import line_draws, rounded, run_weights

FloatArray = NDArray[np.float64]

EXPONENTIAL, LOG_LINEAR = "exponential forgetting", "log-linear forgetting"
FORMULAS = {
    EXPONENTIAL: "kept = 2^(−(delay − start)/half_life)",
    LOG_LINEAR: "kept = 1 − 0.5·ln((delay + step)/(start + step)) ÷ "
    "ln((half_life + start + step)/(start + step))",
}
SOURCES = {
    EXPONENTIAL: "memoryless decay, one time constant per size",
    LOG_LINEAR: "arXiv 2406.11813: R(t2) − R(t1) = −a·log(t2/t1)",
}
HALF_LIFE, EXPONENT = "log_half_life_tokens", "half_life_exponent"
CENTRE, START, STEP = "centre_log_block_params", "start_delay_tokens", "step_tokens"
EXPONENT_PRIOR = 2.0
"""Standard deviation of a Gaussian prior on b around 0: decides only where one size leaves it open."""
SIGNIFICANCE = 2.0
"""A run whose mean early gain is below this many standard errors over its probes has nothing to forget."""
MIN_DELAYS, EARLY = 3, 3
ROUGH = 0.25
"""Misfit on left-out runs, as a share of the early gain, above which the law warns about itself."""


@dataclass(frozen=True)
class _Curve:
    """One injection of a run: delays ≥ d₀, mean gain over its probes as a share of its early mean; (m,)."""

    run: str
    log_params: float
    delay: FloatArray
    gain: FloatArray


def fit(retention: Table, draws: int, generator: np.random.Generator) -> tuple[FittedLaw | None, list[str]]:
    """Fit the law; None, with the reason among the warnings, when no run shows a gain.

    Bootstrap draws weight whole runs; the form is chosen once, on all of them.
    """
    if "decaying" in retention:
        retention = retention.where(retention["decaying"] != 1)
    if not len(retention):
        return None, ["retention: measured only while the learning rate was decaying; inject earlier"]
    start = _start(retention)
    longest = float(retention["delay_tokens"].max())
    step = (
        0.0
        if start > 0
        else float(retention["delay_tokens"][retention["delay_tokens"] > 0].min(initial=longest))
    )
    curves, left_out = _curves(retention, start)
    warnings = []
    if left_out:
        warnings.append(
            f"retention: {len(left_out)} injection(s) left out ({', '.join(left_out)}): no gain to speak of "
            f"(below {SIGNIFICANCE:g} standard errors over the probes), or fewer than {MIN_DELAYS} delays "
            "from the peak on"
        )
    if not curves:
        return None, [*warnings, "retention: no run gained anything, so nothing can be said about forgetting"]
    x = np.array([curve.log_params for curve in curves])
    run = np.unique([curve.run for curve in curves], return_inverse=True)[1]
    runs = int(run.max()) + 1
    centre = float(x.mean())
    if np.ptp(x) < 1e-9:
        warnings.append(
            "retention: one size only, so its change with size cannot be said; it is held constant"
        )
    elif runs < 3:
        warnings.append(f"retention: {runs} runs with a gain; too few for intervals")
    constants = (centre, start, step)
    equal = np.ones(len(curves))
    errors = {form: _left_out_error(form, curves, constants) for form in (EXPONENTIAL, LOG_LINEAR)}
    form = min(errors, key=lambda name: errors[name])
    point = _solve(form, curves, equal, constants)
    if errors[form] > ROUGH:
        warnings.append(
            f"retention: no simple curve describes these gains (misfit {errors[form]:.0%} of the gain on "
            "left-out runs); read the measured curves rather than the half-lives"
        )
    if np.exp(point[0]) > 2 * longest:
        warnings.append(
            f"retention: the half-life at the middle of the ladder ({np.exp(point[0]):.3g} tokens) is beyond "
            f"the longest delay measured ({longest:.3g}); measure longer delays before relying on it"
        )
    weights = run_weights(runs, line_draws(runs, draws), generator)[:, run]
    drawn = [_solve(form, curves, row, constants, point) for row in weights]
    return (
        FittedLaw(
            law=form,
            formula=f"{FORMULAS[form]}; "
            f"half_life = exp({HALF_LIFE} + {EXPONENT}·(ln(block_params) − centre))",
            source=SOURCES[form],
            parameters=[HALF_LIFE, EXPONENT],
            values=point.tolist(),
            draws=rounded(np.array(drawn)) if drawn else [],
            ranges={
                "block_params": Range(low=float(np.exp(x.min())), high=float(np.exp(x.max()))),
                "delay_tokens": Range(low=start, high=longest),
            },
            settings={
                CENTRE: centre,
                START: start,
                STEP: step,
                "left_out_run_error_exponential": errors[EXPONENTIAL],
                "left_out_run_error_log_linear": errors[LOG_LINEAR],
            },
            rows=len(retention),
            runs=runs,
            residual=float(np.sqrt(np.mean(_residuals(form, point, curves, equal, constants) ** 2))),
            warnings=warnings,
        ),
        [],
    )


def half_life(law: FittedLaw, block_params: float) -> FloatArray:
    """Delay in tokens, from the peak, after which half of a gain is left: point estimate, then every draw;
    shape (1 + D,)."""
    parameters = np.array([law.values, *law.draws])
    return np.exp(parameters[:, 0] + parameters[:, 1] * (np.log(block_params) - law.settings[CENTRE]))


def kept(law: FittedLaw, block_params: float, delay_tokens: float) -> FloatArray:
    """Share of the peak gain left after a delay: point estimate, then every draw; shape (1 + D,)."""
    constants = (law.settings[CENTRE], law.settings[START], law.settings[STEP])
    return _kept(law.law, half_life(law, block_params), np.array(delay_tokens), constants)


def _kept(
    form: str, half: FloatArray, delay: FloatArray, constants: tuple[float, float, float]
) -> FloatArray:
    _, start, step = constants
    if form == EXPONENTIAL:
        return 2.0 ** (-(delay - start) / half)
    scale = np.log((half + start + step) / (start + step))
    return 1.0 - 0.5 * np.log((delay + step) / (start + step)) / scale


def _residuals(
    form: str,
    parameters: FloatArray,
    curves: list[_Curve],
    weights: FloatArray,
    constants: tuple[float, float, float],
) -> FloatArray:
    """Misfits with every run's best amplitude, weighted; shape (Σ m,)."""
    parts = []
    for curve, weight in zip(curves, weights, strict=True):
        half = np.exp(parameters[0] + parameters[1] * (curve.log_params - constants[0]))
        shape = _kept(form, half, curve.delay, constants)
        amplitude = (shape @ curve.gain) / (shape @ shape + 1e-12)
        parts.append(np.sqrt(weight) * (curve.gain - amplitude * shape))
    return np.concatenate(parts)


def _solve(
    form: str,
    curves: list[_Curve],
    weights: FloatArray,
    constants: tuple[float, float, float],
    start: FloatArray | None = None,
) -> FloatArray:
    """Weighted least squares for (ln half-life at the centre, exponent); shape (2,)."""
    longest = max(float(curve.delay.max()) for curve in curves)
    low, high = np.log(longest / 1e4), np.log(100 * longest)

    def misfit(parameters: FloatArray) -> FloatArray:
        return np.append(
            _residuals(form, parameters, curves, weights, constants), 0.1 * parameters[1] / EXPONENT_PRIOR
        )

    starts = (
        [start] if start is not None else [np.array([np.log(longest * f), 0.0]) for f in (0.01, 0.1, 1.0)]
    )
    found = [
        least_squares(misfit, np.clip(s, [low, -4.0], [high, 4.0]), bounds=([low, -4.0], [high, 4.0]))
        for s in starts
    ]
    return min(found, key=lambda solution: solution.cost).x


def _left_out_error(form: str, curves: list[_Curve], constants: tuple[float, float, float]) -> float:
    """Root mean square misfit of each run under the law fitted to the others (amplitude still its own)."""
    runs = list(dict.fromkeys(curve.run for curve in curves))
    if len(runs) < 2:
        point = _solve(form, curves, np.ones(len(curves)), constants)
        return float(np.sqrt(np.mean(_residuals(form, point, curves, np.ones(len(curves)), constants) ** 2)))
    squares = []
    for run in runs:
        own = [curve for curve in curves if curve.run == run]
        others = [curve for curve in curves if curve.run != run]
        point = _solve(form, others, np.ones(len(others)), constants)
        squares.append(np.mean(_residuals(form, point, own, np.ones(len(own)), constants) ** 2))
    return float(np.sqrt(np.mean(squares)))


def _start(retention: Table) -> float:
    """d₀: the delay at which the mean of all curves, each as a share of its own mean size, peaks."""
    totals: dict[float, list[float]] = {}
    for _, part in _injections(retention):
        delays, gains, _ = _mean_curve(part)
        scale = np.abs(gains).mean() or 1.0
        for delay, gain in zip(delays, gains, strict=True):
            totals.setdefault(float(delay), []).append(float(gain / scale))
    most = max(len(values) for values in totals.values())
    common = {delay: float(np.mean(values)) for delay, values in totals.items() if 2 * len(values) >= most}
    return max(common, key=lambda delay: common[delay])


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
    groups = [part["gain"][part["delay_tokens"] == delay] for delay in delays]
    errors = [g.std(ddof=1) / np.sqrt(len(g)) if len(g) > 1 else np.nan for g in groups]
    return delays, np.array([g.mean() for g in groups]), np.array(errors)


def _curves(retention: Table, start: float) -> tuple[list[_Curve], list[str]]:
    """The curves of all injections with a gain, and the names of the others."""
    curves, left_out = [], []
    for name, part in _injections(retention):
        delays, gains, errors = _mean_curve(part)
        after = delays >= start
        early = float(gains[after][:EARLY].mean()) if after.any() else 0.0
        error = float(np.nan_to_num(errors[after][:EARLY]).mean()) if after.any() else 0.0
        if after.sum() < MIN_DELAYS or early <= 0 or early < SIGNIFICANCE * error:
            left_out.append(name)
            continue
        log_params = float(np.log(part["block_params"][0]))
        curves.append(_Curve(str(part["run_id"][0]), log_params, delays[after], gains[after] / early))
    return curves, left_out
