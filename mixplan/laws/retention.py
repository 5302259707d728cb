"""The retention law: how much of a burst's gain is left after a delay, by size and position in training.

    gain(d) = G · kept(d; h),   ln h = H + b·ln(N/N₀) + c·ln(t/t₀) + u + v

kept is one of the forms of retention_forms, h the half-life in tokens from the peak of the gain on, N block
parameters, t the tokens seen before the burst. u ~ N(0, τ²) differs between runs (seeds), v ~ N(0, ω²)
between the bursts of a run: run_scatter handles them, and keeps them apart from what is not known of H, b, c.
c is fitted only where one size was given bursts at several positions. Of the forms the one is kept under
which left-out runs are most likely; all scores are stored. Measurements made while the learning rate decays
at the end of a run are left out.

Shape legend: R = runs used, C = curves (one per burst of a run), D = draws, Q = normal quantiles, S = sizes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from mixplan.documents import Table
from mixplan.documents.calibration import FittedLaw, Range
from mixplan.laws.drawn import line_draws, rounded
from mixplan.laws.retention_curves import MIN_DELAYS, SIGNIFICANCE, Curve, peak_delay, read_curves
from mixplan.laws.retention_fit import Bursts, draw, fit_form, left_out_misfit, left_out_score, residual
from mixplan.laws.retention_forms import FORMULAS, SHAPES, SOURCES, kept_share
from mixplan.units import number

FloatArray = NDArray[np.float64]

HALF_LIFE, EXPONENT = "log_half_life_tokens", "half_life_exponent"
POSITION_EXPONENT, SHAPE = "position_exponent", "shape"
RUN_SCATTER, BURST_SCATTER = "log_half_life_sd_between_runs", "log_half_life_sd_within_runs"
CENTRE, START, STEP = "centre_log_block_params", "start_delay_tokens", "step_tokens"
POSITION_CENTRE, LEAST_POSITION = "centre_log_injected_at_tokens", "least_injected_at_tokens"
PRIOR_SD = {HALF_LIFE: 3.0, EXPONENT: 2.0, POSITION_EXPONENT: 1.0}
"""Standard deviations of the normal priors: H around the middle of the delays, b and c around 0. They decide
only what the measurements leave open (b with one size)."""
ROUGH = 0.25
"""Misfit on left-out runs, as a share of the early gain, above which the law warns about itself."""
QUANTILES = 20


def fit(retention: Table, draws: int, generator: np.random.Generator) -> tuple[FittedLaw | None, list[str]]:
    """Fit the law; None, with the reason among the warnings, when no run shows a gain.

    Draws are from the posterior of the chosen form, its shape included; with fewer than three runs there are
    none, because nothing tells how much runs differ.
    """
    if "decaying" in retention:
        retention = retention.where(retention["decaying"] != 1)
    if not len(retention):
        return None, ["retention: measured only while the learning rate was decaying; inject earlier"]
    start = peak_delay(retention)
    longest = float(retention["delay_tokens"].max())
    above = retention["delay_tokens"][retention["delay_tokens"] > 0]
    step = 0.0 if start > 0 else float(above.min(initial=longest))
    curves, left_out = read_curves(retention, start)
    warnings = []
    if left_out:
        warnings.append(
            f"retention: {len(left_out)} injection(s) left out ({', '.join(left_out)}): no gain to speak of "
            f"(below {SIGNIFICANCE:g} standard errors over the probes), or fewer than {MIN_DELAYS} delays "
            "from the peak on"
        )
    if not curves:
        return None, [*warnings, "retention: no run gained anything, so nothing can be said about forgetting"]
    least = step or start
    size, position = _log_sizes(curves), _log_positions(curves, least)
    run = _run_numbers(curves)
    runs = int(run.max()) + 1
    centre, middle = float(size.mean()), float(position.mean())
    moves = _position_tells(size, position)
    warnings += _design_warnings(size, position, runs, moves)
    columns = [np.ones(len(curves)), size - centre, *([position - middle] if moves else [])]
    names = [HALF_LIFE, EXPONENT, *([POSITION_EXPONENT] if moves else [])]
    prior_sd = np.array([PRIOR_SD[name] for name in names])
    bursts = Bursts(curves, np.column_stack(columns), run, prior_sd, (start, step))
    fits = {form: fit_form(form, bursts) for form in SHAPES}
    scores = {form: left_out_score(fits[form], bursts) for form in fits}
    form = max(scores, key=lambda name: scores[name])
    best = max(fits[form], key=lambda one: one.log_evidence)
    theta = best.posterior.mean()
    rough = left_out_misfit(best, bursts)
    ladder = np.unique(size)
    warnings += _curve_warnings(rough, ladder, np.exp(theta[0] + theta[1] * (ladder - centre)), longest)
    names += [RUN_SCATTER, BURST_SCATTER, *([SHAPE] if len(SHAPES[form]) > 1 else [])]
    values = [*theta.tolist(), *best.posterior.medians(), best.shape]
    drawn = draw(fits[form], line_draws(runs, draws), generator)
    return (
        FittedLaw(
            law=form,
            formula=_formula(form, moves),
            source=SOURCES[form],
            parameters=names,
            values=values[: len(names)],
            draws=rounded(drawn[:, : len(names)]),
            ranges={
                "block_params": _range([curve.block_params for curve in curves]),
                "delay_tokens": Range(low=start, high=longest),
                "injected_at_tokens": _range([curve.injected_at for curve in curves]),
            },
            settings={
                CENTRE: centre,
                POSITION_CENTRE: middle,
                LEAST_POSITION: least,
                START: start,
                STEP: step,
                **{f"left_out_log_likelihood_{_key(name)}": score for name, score in scores.items()},
                "left_out_run_error": rough,
            },
            rows=len(retention),
            runs=runs,
            residual=residual(best, bursts),
            warnings=warnings,
        ),
        [],
    )


def half_life(
    law: FittedLaw, block_params: ArrayLike, injected_at_tokens: ArrayLike | None = None
) -> FloatArray:
    """Half-life of the middle (median) run, in tokens from the peak on: point estimate, then every draw.

    Args:
        law: as fitted.
        block_params: one size, or several of shape (S,).
        injected_at_tokens: tokens seen before the burst, of the same shape; without it the geometric middle
            of the positions measured.

    Returns:
        shape (1 + D,) or (1 + D, S).
    """
    log_size = np.log(np.asarray(block_params, dtype=np.float64)) - law.settings[CENTRE]
    log_half = np.add.outer(_column(law, HALF_LIFE), np.zeros_like(log_size))
    log_half = log_half + np.multiply.outer(_column(law, EXPONENT), log_size)
    if injected_at_tokens is not None and POSITION_EXPONENT in law.parameters:
        position = np.maximum(injected_at_tokens, law.settings[LEAST_POSITION])
        later = np.log(position) - law.settings[POSITION_CENTRE]
        log_half = log_half + np.multiply.outer(_column(law, POSITION_EXPONENT), later)
    return np.asarray(np.exp(log_half))


def kept(
    law: FittedLaw,
    block_params: ArrayLike,
    delay_tokens: ArrayLike,
    injected_at_tokens: ArrayLike | None = None,
) -> FloatArray:
    """Share of the peak gain that the middle run keeps after a delay: point estimate, then every draw.

    Arguments as in `half_life`, delays of one number or shape (S,); shape (1 + D,) or (1 + D, S). At most 1;
    log-linear forgetting goes below 0 at long delays.
    """
    return _kept(law, half_life(law, block_params, injected_at_tokens), delay_tokens, 1)


def new_run_half_life(
    law: FittedLaw, block_params: ArrayLike, injected_at_tokens: ArrayLike | None = None
) -> FloatArray:
    """Half-life of one burst in a run yet to be made: draws of the law, each at Q quantiles of the scatter
    between and within runs; shape (D·Q,) or (D·Q, S). Quantiles of these are the interval for a new run."""
    middle = half_life(law, block_params, injected_at_tokens)[1:]
    scatter = np.hypot(_column(law, RUN_SCATTER), _column(law, BURST_SCATTER))[1:]
    spread = np.exp(np.multiply.outer(norm.ppf((np.arange(QUANTILES) + 0.5) / QUANTILES), scatter))  # (Q, D)
    many = middle[None] * spread.reshape(*spread.shape, *(1,) * (middle.ndim - 1))
    return np.asarray(many.reshape(-1, *middle.shape[1:]))


def new_run_kept(
    law: FittedLaw,
    block_params: ArrayLike,
    delay_tokens: ArrayLike,
    injected_at_tokens: ArrayLike | None = None,
) -> FloatArray:
    """Share kept after a delay by one burst in a run yet to be made, as `new_run_half_life`."""
    return _kept(law, new_run_half_life(law, block_params, injected_at_tokens), delay_tokens, QUANTILES)


def _kept(law: FittedLaw, half: FloatArray, delay: ArrayLike, repeats: int) -> FloatArray:
    shape = np.ones(len(law.draws) + 1) if SHAPE not in law.parameters else _column(law, SHAPE)
    if len(half) != len(shape):
        shape = np.tile(shape[1:], repeats)
    shape = shape.reshape(-1, *(1,) * (half.ndim - 1))
    return kept_share(law.law, half, shape, delay, law.settings[START], law.settings[STEP])


def _column(law: FittedLaw, name: str) -> FloatArray:
    """A parameter's point estimate, then every draw; (1 + D,)."""
    at = law.parameters.index(name)
    return np.array([row[at] for row in [law.values, *law.draws]])


def _log_sizes(curves: list[Curve]) -> FloatArray:
    return np.log([curve.block_params for curve in curves])


def _log_positions(curves: list[Curve], least: float) -> FloatArray:
    """ln of the tokens before each burst; a burst at the very start counts as one after a step."""
    return np.log([max(curve.injected_at, least) for curve in curves])


def _run_numbers(curves: list[Curve]) -> NDArray[np.int64]:
    """Runs numbered in the order in which the curves name them."""
    order = {name: number for number, name in enumerate(dict.fromkeys(curve.run for curve in curves))}
    return np.array([order[curve.run] for curve in curves])


def _position_tells(size: FloatArray, position: FloatArray) -> bool:
    """Whether some size was given bursts at several positions, so that position is not just another size."""
    return any(np.ptp(position[size == one]) > 1e-9 for one in np.unique(size))


def _design_warnings(size: FloatArray, position: FloatArray, runs: int, moves: bool) -> list[str]:
    warnings = []
    if np.ptp(size) < 1e-9:
        warnings.append(
            "retention: one size only, so its change with size cannot be said: the estimate holds it "
            "constant and the interval leaves it open"
        )
    if runs < 3:
        warnings.append(f"retention: {runs} runs with a gain; too few for intervals")
    if not moves and np.ptp(position) > 1e-9:
        warnings.append(
            "retention: each size was given its bursts at one position in training, another for each size; "
            "what size and position do cannot be told apart: give one size bursts at several positions"
        )
    return warnings


def _curve_warnings(rough: float, log_sizes: FloatArray, halves: FloatArray, longest: float) -> list[str]:
    warnings = []
    if rough > ROUGH:
        warnings.append(
            f"retention: no simple curve describes these gains (misfit {rough:.0%} of the gain on "
            "left-out runs); read the measured curves rather than the half-lives"
        )
    late = halves > 2 * longest
    if late.any():
        sizes = ", ".join(number(size) for size in np.exp(log_sizes[late]))
        warnings.append(
            f"retention: the half-life at {sizes} block parameters (up to {number(float(halves.max()))} "
            f"tokens) is beyond the longest delay measured ({number(longest)}); that it is long is known, "
            "how long is not: measure longer delays before relying on it"
        )
    return warnings


def _formula(form: str, moves: bool) -> str:
    position = f" + {POSITION_EXPONENT}·(ln(injected_at_tokens) − centre)" if moves else ""
    return (
        f"{FORMULAS[form]}; half_life = exp({HALF_LIFE} + {EXPONENT}·(ln(block_params) − centre){position})"
    )


def _key(form: str) -> str:
    return form.split()[0].replace("-", "_")


def _range(values: list[float]) -> Range:
    return Range(low=min(values), high=max(values))
