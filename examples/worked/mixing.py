"""Shares become a recipe, a recipe becomes the samples that a run reads, runs become one table.

Shape legend: n = samples of the whole run, L = sequence length.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixplan.documents import Recipe, load, save
from mixplan.documents.atomic import write_bytes, write_text
from mixplan.recipes.emitting import emit

TRAIN = Path(__file__).resolve().parent / "train.py"
_one_reader = threading.Lock()  # Streaming keeps its place in shared memory that has one name a process


@dataclass(frozen=True)
class Arm:
    """One way to choose the mixture, trained with one seed."""

    name: str
    shares: Mapping[str, float]
    """Of every source; they sum to 1."""
    seed: int
    """Of the initialisation and of the order of the samples."""

    @property
    def run_id(self) -> str:
        return f"{self.name}-{self.seed}"


def recipe_of(recipe: Recipe, arm: Arm) -> Recipe:
    """The recommended recipe with other shares: same size, same samples, same caps.

    Whole samples by largest remainder.

    Raises:
        InputError: a source would be repeated more often than its cap (from `emit`, later).
    """
    exact = np.array([arm.shares[source.name] * recipe.samples for source in recipe.sources])
    choose = np.floor(exact + 1e-9).astype(int)
    short = recipe.samples - int(choose.sum())
    choose[np.argsort(choose - exact, kind="stable")[:short]] += 1
    sources = []
    for source, count in zip(recipe.sources, map(int, choose), strict=True):
        share, tokens = count / recipe.samples, count * recipe.sequence_length
        changed = {
            "share": share,
            "rate": share / source.natural_share,
            "epochs": tokens / source.tokens_available,
            "tokens": tokens,
            "choose": count,
        }
        sources.append(source.model_copy(update=changed))
    own = {"name": arm.name, "sources": sources, "shuffle_seed": 17 + arm.seed}
    # What the recipe says of tasks, limits and other answers is true of the recommended shares alone.
    dropped: dict[str, object] = {
        "tasks": [],
        "binds": [],
        "candidates": [],
        "unconstrained": None,
        "warnings": [],
    }
    dropped |= {"common_loss_nats": None, "common_loss_increase_nats": None}
    return Recipe.model_validate(recipe.model_copy(update=own | dropped).model_dump())


def read_samples(mixture: Path, count: int) -> np.ndarray:
    """Every sample of an emitted mixture in the order in which a trainer gets them, int16 (n, L)."""
    from mixplan.recipes.loader import make_loader

    with _one_reader:
        parts = [batch["tokens"].numpy() for batch in make_loader(256, folder=mixture)]
    samples = np.concatenate(parts)[:count]
    if len(samples) != count or samples.max() > np.iinfo(np.int16).max:
        raise SystemExit(f"{mixture}: {len(samples)} samples were read, {count} were expected")
    return samples.astype(np.int16)


def train_all(
    folder: Path,
    recipe: Recipe,
    arms: Iterable[Arm],
    jobs: int = 2,
    change: Callable[[np.ndarray, Arm], np.ndarray] = lambda samples, _: samples,
) -> list[dict[str, object]]:
    """Train every arm that has no result yet; one row of results an arm, in the order of `arms`.

    Args:
        change: what is done to the samples (n, L) of an arm before they are trained on.
    """
    listed = list(arms)
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda arm: _train(folder, recipe, arm, change), listed))


def _train(
    folder: Path, recipe: Recipe, arm: Arm, change: Callable[[np.ndarray, Arm], np.ndarray]
) -> dict[str, object]:
    place = folder / "runs" / arm.run_id
    out = place / "result.json"
    own = recipe_of(recipe, arm)
    if not out.is_file():
        place.mkdir(parents=True, exist_ok=True)
        save(own, place / "recipe.yaml")
        emit(place / "recipe.yaml", place / "mixture", force=True)
        samples = change(read_samples(place / "mixture", own.samples), arm)
        buffer = io.BytesIO()
        np.save(buffer, samples)
        write_bytes(place / "samples.npy", buffer.getvalue())
        command = [sys.executable, str(TRAIN), str(folder), own.size.name, str(place / "samples.npy")]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*command, str(arm.seed), str(out)], check=True, env=environment)
        (place / "samples.npy").unlink()
        print(f"trained {arm.run_id}", flush=True)
    elif load(place / "recipe.yaml", Recipe) != own:
        raise SystemExit(f"{place} holds a run of another mixture; remove it, or give another folder")
    found = json.loads(out.read_text(encoding="utf-8"))
    skills = {f"skill.{task}": round(value, 4) for task, value in found.pop("skill").items()}
    if (place / "own_text.json").is_file():
        asked = json.loads((place / "own_text.json").read_text(encoding="utf-8"))
        skills |= {f"own.{task}": round(value, 4) for task, value in asked.items()}
    shares = {f"share.{source.name}": round(source.share, 6) for source in own.sources}
    return {"arm": arm.name, **found, "lm_loss": round(found["lm_loss"], 5), **skills, **shares}


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    """Rows as CSV; a row is empty where only others have a value."""
    text = io.StringIO()
    names = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
