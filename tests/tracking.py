"""A small recipe whose numbers are easy to follow, for tests of track."""

from __future__ import annotations

import copy
from typing import Any

from mixplan.documents import Recipe

LENGTH = 128
SAMPLES = 20_000
TOKENS = SAMPLES * LENGTH
UNTOLD = {"frequency": 1e-3, "p_learned": 0.9, "extrapolated": False}


def source(name: str, choose: int, available: float, **more: Any) -> dict[str, Any]:
    tokens = choose * LENGTH
    return {
        "name": name,
        "role": "rare",
        "share": choose / SAMPLES,
        "natural_share": 0.01,
        "rate": choose / SAMPLES / 0.01,
        "epochs": tokens / available,
        "max_epochs": 4.0,
        "tokens": tokens,
        "tokens_available": available,
        "choose": choose,
        "repetition_half_life_epochs": 15.0,
        **more,
    }


def task(name: str, density: dict[str, float], **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "family": "table_lookup",
        "complexity": 6,
        "density": density,
        "target_probability": 0.9,
        "natural": UNTOLD,
        "recommended": UNTOLD,
        **more,
    }


def recipe_dict(**more: Any) -> dict[str, Any]:
    """web 94 %, books 4 % (common), r1 and r2 1 % each: r1 at half an epoch, r2 far below one."""
    data: dict[str, Any] = {
        "name": "tracked",
        "size": {"name": "cpu_33k", "d_model": 32, "layers": 2, "heads": 4, "d_ffn": 128},
        "block_params": 33_056,
        "total_params": 66_000,
        "vocab_size": 512,
        "sequence_length": LENGTH,
        "samples": SAMPLES,
        "tokens": TOKENS,
        "sources": [
            source("web", 18_800, 1e8, role="common", natural_share=0.94),
            source("books", 800, 1e7, role="common", natural_share=0.04),
            source("r1", 200, 51_200),
            source("r2", 200, 1e6),
        ],
        "tasks": [task("t1", {"r1": 0.1}), task("t2", {"r2": 0.05}), task("t12", {"r1": 0.02, "r2": 0.03})],
    }
    return {**copy.deepcopy(data), **more}


def recipe(**more: Any) -> Recipe:
    return Recipe.model_validate(recipe_dict(**more))
