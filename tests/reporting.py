"""A working folder with known contents and a forecast with known answers, for tests of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from simulate import INTERCEPTS, LADDER, mean_skill, simulate_measurements, true_lm_loss

from mixplan.documents import Calibration, Measurements, Recipe, Table, save, write_measurements
from mixplan.documents.atomic import write_json
from mixplan.documents.calibration import (
    Backtest,
    BacktestCell,
    BacktestScore,
    FittedLaw,
    RungBacktest,
    TaskCoverage,
)
from mixplan.documents.forecast import FloatArray, SkillForecast
from mixplan.documents.recipe import Alternative, Binding, Cost, RecipeSource, RecipeTask, TaskPrediction
from mixplan.documents.shapes import PRESETS

HALF_WIDTH = 0.15
SLOPE = 12.0  # of p_learned in skill around the threshold of 0.8


class TruthForecast:
    """The laws that the simulated measurements were drawn from."""

    def families(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        for family, complexity in sorted(INTERCEPTS):
            found.setdefault(family, []).append(float(complexity))
        return found

    def skill(
        self,
        family: list[str],
        complexity: FloatArray,
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> SkillForecast:
        cells = zip(family, complexity, block_params, tokens, frequency, strict=True)
        mean = np.array([mean_skill(name, level, n, d, f) for name, level, n, d, f in cells])
        chance = 1 / (1 + np.exp(-SLOPE * (mean - 0.8)))
        return SkillForecast(
            skill=mean,
            skill_low=mean - HALF_WIDTH,
            skill_high=mean + HALF_WIDTH,
            mean_low=mean - HALF_WIDTH / 3,
            mean_high=mean + HALF_WIDTH / 3,
            p_learned=chance,
            extrapolated=[[] for _ in mean],
        )

    def p_learned(
        self,
        family: list[str],
        complexity: FloatArray,
        block_params: FloatArray,
        tokens: FloatArray,
        frequency: FloatArray,
    ) -> FloatArray:
        return self.skill(family, complexity, block_params, tokens, frequency).p_learned

    def lm_loss(self, block_params: FloatArray, tokens: FloatArray) -> FloatArray | None:
        return np.array([true_lm_loss(n, d) for n, d in zip(block_params, tokens, strict=True)])


def calibration_of(measurements: Measurements) -> Calibration:
    """A calibration whose backtest is the truth against the largest rung's final cells."""
    table = measurements.learning
    last = table["tokens"] == table["tokens"].max()
    left_out = table.where(last & (table["rung"] == "296k"))
    copied = table.where(last & (table["rung"] == "132k"))
    predicted = TruthForecast().skill(
        list(left_out["family"]),
        left_out["complexity"],
        left_out["block_params"],
        left_out["tokens"],
        left_out["frequency"],
    )
    cells = [
        BacktestCell(
            family=str(left_out["family"][i]),
            complexity=left_out["complexity"][i],
            frequency=left_out["frequency"][i],
            block_params=left_out["block_params"][i],
            tokens=left_out["tokens"][i],
            seed=int(left_out["seed"][i]),
            observed=left_out["skill"][i],
            predicted=predicted.skill[i],
            low=predicted.skill_low[i],
            high=predicted.skill_high[i],
            p_learned=predicted.p_learned[i],
            copied=copied["skill"][i],
        )
        for i in range(len(left_out))
    ]
    observed, copies = left_out["skill"], copied["skill"]
    caught = float(np.mean([cell.low <= cell.observed <= cell.high for cell in cells]))
    law = BacktestScore(
        forecast="default forecast",
        brier=float(np.mean((predicted.p_learned - (observed >= 0.8)) ** 2)),
        skill_brier=float(np.mean((predicted.skill - observed) ** 2)),
        auroc=0.9,
        coverage_90=caught,
        log_score=-1.2,
        width_90=2 * HALF_WIDTH,
        threshold_ratio=1.3,
        thresholds=6,
        thresholds_near=4,
        cells=len(cells),
    )
    copy = BacktestScore(
        forecast="copy the largest fitted rung",
        baseline=True,
        brier=float(np.mean(((copies >= 0.8) * 1.0 - (observed >= 0.8)) ** 2)),
        skill_brier=float(np.mean((copies - observed) ** 2)),
        auroc=None,
        coverage_90=None,
        cells=len(cells),
    )
    scores = [law, law.model_copy(update={"forecast": "combined"}), copy]
    rungs = list(LADDER)
    rolling = [
        RungBacktest(
            fitted_rungs=rungs[:count],
            left_out_rung="296k",
            left_out_block_params=LADDER["296k"],
            rungs_ahead=len(rungs) - count,
            size_ratio=LADDER["296k"] / LADDER[rungs[count - 1]],
            seed_noise_skill=0.02,
            seed_noise_learned=0.05,
            scores=scores,
        )
        for count in (4, 5)
    ]
    return Calibration(
        learning=FittedLaw(
            law="combined", formula="as simulated", parameters=["a"], values=[0.0], rows=len(table), runs=12
        ),
        weights={"combined": 1.0},
        tasks=[
            TaskCoverage(family=name, complexity=level, cells=72, learned=30, status="bracketed")
            for name, level in INTERCEPTS
        ],
        backtest=Backtest(
            left_out_rung="296k",
            left_out_block_params=LADDER["296k"],
            fitted_rungs=[name for name in LADDER if name != "296k"],
            scores=scores,
            cells=cells,
            seed_noise_brier=0.02,
            verdict="the law beats copying the largest fitted rung",
            rolling=rolling,
            choice="the highest mean log score",
        ),
        warnings=["a warning of the fit"],
        provenance={"corpus_sha256": "ab" * 32, "seeds": [0, 1]},
    )


def recipe(common: str = "manuals", rare: str = "sums") -> Recipe:
    """A recipe with one common and two rare sources and two tasks, one of them beyond the ladder."""
    sequence, samples = 128, 100_000
    chosen = {common: 88_000, rare: 11_500, "orders": 500}
    natural = {common: 0.985, rare: 0.01, "orders": 0.005}
    available = {common: 40e6, rare: 0.4e6, "orders": 0.05e6}
    sources = [
        RecipeSource(
            name=name,
            role="common" if name == common else "rare",
            share=choose / samples,
            natural_share=natural[name],
            rate=choose / samples / natural[name],
            epochs=choose * sequence / available[name],
            max_epochs=4.0,
            tokens=choose * sequence,
            tokens_available=available[name],
            choose=choose,
        )
        for name, choose in chosen.items()
    ]

    def predicted(
        frequency: float, chance: float, skill: float, why: list[str] | None = None
    ) -> TaskPrediction:
        return TaskPrediction(
            frequency=frequency,
            skill=skill,
            skill_low=skill - 0.2,
            skill_high=min(1.0, skill + 0.1),
            p_learned=chance,
            extrapolated=bool(why),
            why_extrapolated=why or [],
        )

    beyond = ["block_params 604M is 2× above the largest fitted 296K"]
    tasks = [
        RecipeTask(
            name="adding",
            family="modular_addition",
            complexity=5,
            target_probability=0.8,
            natural=predicted(2e-4, 0.04, 0.31),
            recommended=predicted(2.3e-3, 0.91, 0.94),
        ),
        RecipeTask(
            name="ordering",
            family="comparison",
            complexity=16,
            target_probability=0.8,
            natural=predicted(1e-4, 0.22, 0.52),
            recommended=predicted(1e-4, 0.22, 0.52, beyond),
        ),
    ]
    shape = PRESETS["cpu_132k"]
    other = Alternative(
        size="cpu_296k",
        block_params=PRESETS["cpu_296k"].block_params,
        tokens=9.1e6,
        flops=2.1e13,
        shares={common: 0.9, rare: 0.09, "orders": 0.01},
        p_learned={"adding": 0.95, "ordering": 0.84},
        feasible=False,
        note="orders over its cap",
    )
    return Recipe(
        name="demo",
        size=shape,
        block_params=shape.block_params,
        total_params=shape.total_params(257),
        vocab_size=257,
        sequence_length=sequence,
        samples=samples,
        tokens=samples * sequence,
        sources=sources,
        tasks=tasks,
        cost=Cost(flops=1.24e13, gpu_hours=0.13, money=1.5, currency="USD"),
        common_loss_nats=2.213,
        common_loss_increase_nats=0.0123,
        binds=[Binding(constraint="sources.sums.max_epochs", value=3.68, limit=4.0)],
        unconstrained=other,
        candidates=[other],
        provenance={"plan_sha256": "cd" * 32},
    )


def verification() -> dict[str, Any]:
    """What verify says about the recipe's mixture: complete, one source in bursts."""
    sources = []
    for source, ratio in zip(recipe().sources, (0.97, 1.03, 2.05), strict=True):
        spread = {
            "windows": 100,
            "mean_share": source.share,
            "cv": 0.1 * ratio,
            "cv_iid": 0.1,
            "cv_ratio": ratio,
            "empty_windows": 0,
            "longest_gap_samples": 2300,
            "longest_gap_iid_samples": 1350.5,
        }
        sources.append(
            {
                "name": source.name,
                "role": source.role,
                "samples_expected": source.choose,
                "samples": source.choose,
                "epochs": source.epochs,
                "spread": spread,
            }
        )
    samples = recipe().samples
    return {
        "passed": True,
        "name": "demo",
        "samples_expected": samples,
        "samples": samples,
        "sources": sources,
    }


def fill(folder: Path, seed: int = 1) -> Measurements:
    """Write measurements/, calibration.json, recipe.yaml and verify.json into `folder`."""
    measurements = simulate_measurements(seed=seed, precision=6)
    write_measurements(measurements, folder / "measurements")
    save(calibration_of(measurements), folder / "calibration.json")
    save(recipe(), folder / "recipe.yaml")
    write_json(folder / "verify.json", verification())
    return measurements


ATTACKS = (
    "<img src=x onerror=window.hacked=1>",
    "</title></style></script><script>window.hacked=1</script>",
    "\"' onmouseover=window.hacked=1 x='",
    "&lt;b&gt; \u2028 ]]> -->",
)


def hostile(folder: Path) -> None:
    """A folder in which everything that may be free text tries to become markup."""
    measurements = simulate_measurements(
        rungs={ATTACKS[0]: 8_336, ATTACKS[1]: 18_648, "33k": 33_056}, seeds=1
    )
    tables = {}
    for name in ("learning", "retention", "interference"):
        columns = dict(getattr(measurements, name).columns)
        columns["family"] = np.array(
            [ATTACKS[2] if value == "comparison" else ATTACKS[3] for value in columns["family"]], dtype=object
        )
        columns["task"] = np.array([ATTACKS[0]] * len(columns["task"]), dtype=object)
        tables[name] = Table(columns)
    write_measurements(Measurements(**tables, provenance={"note": ATTACKS[1]}), folder / "measurements")
    calibration = calibration_of(simulate_measurements(seed=1, precision=6)).model_dump()
    calibration["warnings"] = list(ATTACKS)
    calibration["provenance"] = {attack: attack for attack in ATTACKS}
    calibration["backtest"]["verdict"] = ATTACKS[0]
    calibration["backtest"]["left_out_rung"] = ATTACKS[1]
    calibration["backtest"]["choice"] = ATTACKS[2]
    for one in calibration["backtest"]["rolling"]:
        one["left_out_rung"] = one["scores"][0]["forecast"] = ATTACKS[0]
        one["fitted_rungs"] = list(ATTACKS)
    for cell in calibration["backtest"]["cells"]:
        cell["family"] = ATTACKS[2]
    save(Calibration.model_validate(calibration), folder / "calibration.json")
    given = recipe().model_dump()
    given["warnings"] = list(ATTACKS)
    given["binds"][0]["constraint"] = ATTACKS[0]
    given["cost"]["currency"] = ATTACKS[0]
    given["unconstrained"]["note"] = ATTACKS[1]
    for task in given["tasks"]:
        task["family"] = ATTACKS[1]
        task["recommended"]["why_extrapolated"] = list(ATTACKS)
    save(Recipe.model_validate(given), folder / "recipe.yaml")
    write_json(folder / "verify.json", {**verification(), "problems": list(ATTACKS), "passed": False})
