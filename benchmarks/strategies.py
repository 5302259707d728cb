"""Ways to choose the mixture, side by side: same sources, size and tokens, measured by training.

    python benchmarks/strategies.py CORPUS FOLDER

mixplan's answer and the natural shares are those of examples/worked/run.py, which runs first in the same
folder. Beside them: temperature sampling, UniMax (arXiv 2304.09151) and a regression on runs with random
mixtures in the way of RegMix (arXiv 2407.01492). Run again, it continues where it was interrupted. Writes
FOLDER/strategies.csv (final runs) and FOLDER/proxies.csv (the regression's runs).

Shape legend: S = sources, P = proxy runs, Q = quantities that are regressed (skills, then the common loss),
C = candidate mixtures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.calibrate.runs import plan_runs
from mixplan.calibrate.tasks import dependence_cells
from mixplan.documents import Calibration, Plan, Recipe, load
from mixplan.documents.references import resolve
from mixplan.laws.predict import LawForecast
from mixplan.recommend import recommend
from mixplan.recommend.mixture import effective_tokens

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "worked"))
import mixing
import run as worked
import sources

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
Model = Callable[[FloatArray], FloatArray]

UNIMAX_EPOCHS = 4.0
PROXIES = 16
PRIOR_TEMPERATURE = 0.5
"""Exponent on the natural shares, as in RegMix's published mixture generator."""
STRENGTHS = (5.0, 50.0)
"""Of the Dirichlet. RegMix draws 0.1 to 5 for 512 runs; with 16 such runs most scarce sources would be absent
from most of them, so these mixtures are less extreme."""
CANDIDATES, AVERAGED = 100_000, 100
"""Simulated mixtures, and how many of the best are averaged (RegMix, section 3)."""


def temperature(natural: FloatArray, exponent: float) -> FloatArray:
    """Shares ∝ natural^exponent, shape (S,)."""
    shares = natural**exponent
    return np.asarray(shares / shares.sum())


def unimax(available: FloatArray, tokens: float, epochs: float = UNIMAX_EPOCHS) -> FloatArray:
    """UniMax (arXiv 2304.09151, algorithm 1): the budget evenly over sources, none above `epochs` epochs.

    From the smallest source on, each takes an equal part of what is left, or `epochs` times its tokens where
    that is less.

    Args:
        available: tokens of each source, shape (S,).
        tokens: of the run.

    Returns:
        Shares, shape (S,).
    """
    taken = np.zeros(len(available))
    left = tokens
    for place, source in enumerate(np.argsort(available, kind="stable")):
        taken[source] = min(left / (len(available) - place), epochs * available[source])
        left -= taken[source]
    return taken / taken.sum()


def random_mixtures(
    natural: FloatArray, most: FloatArray, count: int, generator: np.random.Generator
) -> FloatArray:
    """Dirichlet mixtures around the tempered natural one, none above a source's cap, shape (count, S).

    Args:
        most: largest share of each source, shape (S,).
    """
    prior = temperature(natural, PRIOR_TEMPERATURE)
    kept: list[FloatArray] = []
    while len(kept) < count:
        strength = np.exp(generator.uniform(*np.log(STRENGTHS)))
        drawn = generator.dirichlet(prior * strength)
        if bool((drawn <= most).all()):
            kept.append(drawn)
    return np.array(kept)


def linear(shares: FloatArray, values: FloatArray) -> Model:
    """Ridge regression (penalty 1e-2 on standardised columns) on shares (P, S)."""
    mean, spread = shares.mean(axis=0), shares.std(axis=0) + 1e-12
    x = (shares - mean) / spread
    weights = np.linalg.solve(x.T @ x + 1e-2 * len(x) * np.eye(x.shape[1]), x.T @ (values - values.mean()))
    return lambda new: np.asarray((new - mean) / spread @ weights + values.mean())


def log_linear(shares: FloatArray, values: FloatArray) -> Model:
    """The same on log(share + 0.1 %)."""
    fitted = linear(np.log(shares + 1e-3), values)
    return lambda new: fitted(np.log(new + 1e-3))


def boosted(shares: FloatArray, values: FloatArray) -> Model:
    """LightGBM, RegMix's regressor, with leaves small enough for 16 rows."""
    import lightgbm

    settings = {
        "objective": "regression",
        "learning_rate": 0.05,
        "num_leaves": 4,
        "min_data_in_leaf": 2,
        "min_data_in_bin": 1,
        "verbosity": -1,
        "seed": 42,
        "num_threads": 1,
        "deterministic": True,
    }
    fitted = lightgbm.train(settings, lightgbm.Dataset(shares, values), num_boost_round=200)
    return lambda new: np.asarray(fitted.predict(new))


def regressors() -> dict[str, Callable[[FloatArray, FloatArray], Model]]:
    """What may be fitted; LightGBM only where it is installed."""
    found: dict[str, Callable[[FloatArray, FloatArray], Model]] = {"linear": linear, "log-linear": log_linear}
    try:
        import lightgbm  # noqa: F401
    except ImportError:
        return found
    return found | {"LightGBM": boosted}


def fit_best(shares: FloatArray, values: FloatArray) -> tuple[str, float, Model]:
    """The regressor that predicts left-out runs best: its name, RMS error of those, and the fit to all."""
    errors: dict[str, float] = {}
    for name, fit in regressors().items():
        missed = [
            fit(np.delete(shares, row, 0), np.delete(values, row))(shares[[row]])[0] - values[row]
            for row in range(len(values))
        ]
        errors[name] = float(np.sqrt(np.mean(np.square(missed))))
    best = min(errors, key=errors.__getitem__)
    return best, errors[best], regressors()[best](shares, values)


def regmix(
    shares: FloatArray, skills: FloatArray, losses: FloatArray, natural: FloatArray, most: FloatArray,
    most_loss_increase: float, learned: float, generator: np.random.Generator,
) -> tuple[FloatArray, list[str]]:  # fmt: skip
    """The mixture with the best predicted objective, and how well each quantity could be regressed.

    The objective is the plan's, as a number: mean over tasks of min(skill, learned), among mixtures whose
    predicted common loss is at most the bound above the predicted one of the natural mixture.

    Args:
        shares: of the proxy runs, shape (P, S).
        skills: shape (P, tasks).
        losses: common loss, shape (P,).
        most: largest share of each source, shape (S,).
    """
    columns = [*skills.T, losses]
    fits = [fit_best(shares, column) for column in columns]
    told = [
        f"{name}, left-out RMS {error:.3f} (spread {column.std():.3f})"
        for (name, error, _), column in zip(fits, columns, strict=True)
    ]
    candidates = random_mixtures(natural, most, CANDIDATES, generator)
    predicted = np.stack([model(candidates) for *_, model in fits], axis=1)  # (C, Q)
    loss_of = fits[-1][2]
    allowed = predicted[:, -1] <= loss_of(natural[None])[0] + most_loss_increase
    score = np.clip(predicted[:, :-1], 0.0, learned).mean(axis=1)
    order = np.argsort(-np.where(allowed, score, -np.inf), kind="stable")[:AVERAGED]
    return candidates[order].mean(axis=0), told


def most_value(folder: Path, plan: Plan, recipe: Recipe) -> FloatArray:
    """Shares (S,) of mixplan's answer when all is to be spent: the most tasks that are expected to be learned
    at the recipe's size and tokens, within the plan's loss bound and caps."""
    laws = load(resolve(Path(worked.CALIBRATION)).path / "calibration.json", Calibration)
    spent = Plan.model_validate(
        plan.model_dump(mode="json")
        | {
            "objective": "value",
            "sizes": [recipe.size.name],
            "budget": {"tokens": float(recipe.tokens)},
            "min_tokens": 0.999 * recipe.tokens,
        }
    )
    answer = recommend(spent, LawForecast(laws), folder, calibration=laws)
    return np.array([source.share for source in answer.sources])


def predicted(plan: Plan, recipe: Recipe, rows: Sequence[Mapping[str, object]]) -> list[dict[str, float]]:
    """What the laws said of the shares of every run, at the recipe's size and tokens: columns of the tables.

    p.TASK: probability that it is learned; expected.TASK: skill; low.TASK, high.TASK: its 90 % interval;
    predicted_loss_increase: over the natural mixture, nats. Frequencies and common loss are what
    `mixplan recommend` would say; repeats: arXiv 2305.16264, eq. 5.
    """
    laws = LawForecast(load(resolve(Path(worked.CALIBRATION)).path / "calibration.json", Calibration))
    available = np.array([source.tokens_available for source in recipe.sources])
    half_life = np.array([source.repetition_half_life_epochs for source in plan.sources])
    common = np.array([source.role == "common" for source in recipe.sources])
    natural = [source.natural_share for source in recipe.sources]
    shares = [[_number(row, f"share.{source.name}") for source in recipe.sources] for row in rows]
    worth = effective_tokens(np.array([natural, *shares]) * recipe.tokens, available, half_life)
    loss = laws.lm_loss(
        np.full(len(worth), float(recipe.block_params)), np.asarray(worth[:, common].sum(axis=1))
    )
    assert loss is not None
    density = np.array([[task.density.get(s.name, 0.0) for s in recipe.sources] for task in plan.tasks])
    count = len(plan.tasks)
    found = []
    for row, rise in zip(worth[1:], loss[1:] - loss[0], strict=True):
        said = laws.skill(
            [str(task.family) for task in plan.tasks],
            np.array([float(task.complexity or 1) for task in plan.tasks]),
            np.full(count, float(recipe.block_params)),
            np.full(count, float(recipe.tokens)),
            np.maximum(density @ row / recipe.tokens, 1e-300),  # a share of 0 has no logarithm
        )
        columns = {
            "p": said.p_learned,
            "expected": said.skill,
            "low": said.skill_low,
            "high": said.skill_high,
        }
        own = {
            f"{key}.{task.name}": round(float(value), 4)
            for key, values in columns.items()
            for task, value in zip(plan.tasks, values, strict=True)
        }
        found.append({**own, "predicted_loss_increase": round(float(rise), 5)})
    return found


def judged(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """How good the predictions were over all these runs, task by task, as lines of Markdown."""
    lines = [
        "| task | runs | skill, predicted | observed | RMS difference | inside the 90 % intervals "
        "| P(learned), mean | learned | Brier |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    tasks = [key.removeprefix("skill.") for key in rows[0] if key.startswith("skill.")]
    table = np.array(
        [
            [
                [_number(row, f"{key}.{task}") for key in ("skill", "expected", "low", "high", "p")]
                for row in rows
            ]
            for task in tasks
        ]
    )  # (tasks, runs, 5)
    everything = table.reshape(1, -1, 5)
    for name, part in zip([*tasks, "all"], [*table, *everything], strict=True):
        skill, expected, low, high, p = part.T
        done = skill >= worked.LEARNED
        lines.append(
            f"| {name} | {len(rows)} | {expected.mean():.2f} | {skill.mean():.2f} "
            f"| {np.sqrt(np.mean((skill - expected) ** 2)):.2f} "
            f"| {int(((skill >= low) & (skill <= high)).sum())} of {len(skill)} | {p.mean():.2f} "
            f"| {done.mean():.2f} | {np.mean((p - done) ** 2):.3f} |"
        )
    return lines


def ladder_flops() -> float:
    """Training FLOPs of the reference ladder that mixplan's laws are fitted to, its control runs included."""
    spec = sources.ladder()
    return sum(run.flops for run in plan_runs(spec, sources.vocabulary_of(spec), dependence_cells(spec)))


def summary(rows: Sequence[Mapping[str, object]], tried: Sequence[Mapping[str, object]]) -> list[str]:
    """Every strategy in a line of Markdown.

    Args:
        rows: final runs (strategies.csv).
        tried: the regression's own runs (proxies.csv).
    """
    ladder = ladder_flops()
    searching = {
        "recommended": ladder,
        "recommended-value": ladder,
        "regression": sum(_number(row, "flops") for row in tried),
    }
    lines = [
        "| strategy | tasks learned, predicted | observed, by seed | mean | mean skill | common loss (nats) "
        "| over natural, predicted | observed "
        "| learned per 1e12 FLOPs, final run | search, 1e12 FLOPs | learned per 1e12 FLOPs with it |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    runs: dict[str, list[Mapping[str, object]]] = {}
    for row in rows:
        runs.setdefault(str(row["arm"]), []).append(row)
    natural = {row["seed"]: _number(row, "lm_loss") for row in runs["natural"]}
    for name, own in runs.items():
        counts = [worked.learned(row) for row in own]
        skills = [_number(row, key) for row in own for key in row if key.startswith("skill.")]
        expected = sum(_number(own[0], key) for key in own[0] if key.startswith("p."))
        losses = np.array([_number(row, "lm_loss") for row in own])
        rise = losses - np.array([natural[row["seed"]] for row in own])
        error = rise.std(ddof=1) / np.sqrt(len(rise))
        said = round(_number(own[0], "predicted_loss_increase"), 3) + 0.0  # no −0.000
        final, search = _number(own[0], "flops") / 1e12, searching.get(name, 0.0) / 1e12
        lines.append(
            f"| {name} | {expected:.2f} | {', '.join(map(str, counts))} "
            f"| {np.mean(counts):.2f} | {np.mean(skills):.3f} | {losses.mean():.3f} "
            f"| {said:+.3f} | {rise.mean():+.3f} ± {error:.3f} "
            f"| {np.mean(counts) / final:.2f} "
            f"| {search:.1f} | {np.mean(counts) / (final + search):.3f} |"
        )
    return lines


def _number(row: Mapping[str, object], key: str) -> float:
    return float(str(row[key]))


def main() -> int:
    """Proxy runs, then every strategy's final runs; tables are written when all are done."""
    corpus, folder = (Path(argument) for argument in sys.argv[1:3])
    recipe: Recipe = worked.prepare(corpus, folder)
    plan = load(folder / "plan.yaml", Plan)
    names = [source.name for source in recipe.sources]
    natural = np.array([source.natural_share for source in recipe.sources])
    available = np.array([source.tokens_available for source in recipe.sources])
    caps = np.array([source.max_epochs for source in recipe.sources])
    # A sample less, so that rounding to whole samples stays within the cap.
    most = np.minimum((caps * available - recipe.sequence_length) / recipe.tokens, 1.0)

    def shares_of(row: FloatArray) -> dict[str, float]:
        return dict(zip(names, map(float, row), strict=True))

    drawn = random_mixtures(natural, most, PROXIES, np.random.default_rng(7))
    proxies = [
        mixing.Arm(f"proxy{index:02d}", shares_of(row), 100 + index) for index, row in enumerate(drawn)
    ]
    tried = mixing.train_all(folder, recipe, proxies)

    def column(key: str) -> FloatArray:
        return np.array([_number(row, key) for row in tried])

    bound = plan.constraints.max_common_loss_increase_nats
    chosen, told = regmix(
        np.stack([column(f"share.{name}") for name in names], axis=1),
        np.stack([column(f"skill.{task.name}") for task in plan.tasks], axis=1),
        column("lm_loss"),
        natural,
        most,
        np.inf if bound is None else bound,
        worked.LEARNED,
        np.random.default_rng(8),
    )
    for what, text in zip([*(task.name for task in plan.tasks), "common loss"], told, strict=True):
        print(f"regression of {what}: {text}", flush=True)
    choices = {
        "recommended-value": most_value(folder, plan, recipe),
        "temperature-0.7": temperature(natural, 0.7),
        "temperature-0.3": temperature(natural, 0.3),
        "unimax": unimax(available, recipe.tokens),
        "regression": chosen,
    }
    arms = worked.arms_of(recipe)
    arms += [mixing.Arm(name, shares_of(row), seed) for seed in worked.SEEDS for name, row in choices.items()]
    found = mixing.train_all(folder, recipe, arms)
    for row, said in zip([*tried, *found], predicted(plan, recipe, [*tried, *found]), strict=True):
        row |= said
    mixing.write_table(folder / "proxies.csv", tried)
    mixing.write_table(folder / "strategies.csv", found)
    print("\n".join([*summary(found, tried), "", *judged([*tried, *found])]))
    print(f"wrote {folder / 'strategies.csv'} and {folder / 'proxies.csv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
