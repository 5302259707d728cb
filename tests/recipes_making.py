"""Small sources, plans and recipes for the tests of build, emit and verify."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml

from mixplan.documents.mds_index import count_tokens

LENGTH = 16


def write_text(folder: Path, samples: int, documents: int = 3, seed: int = 0) -> Path:
    """Random bytes in several documents that make exactly `samples` samples, with end-of-document tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    sizes = [samples * LENGTH // documents] * documents
    sizes[0] += samples * LENGTH - sum(sizes)
    for number, size in enumerate(sizes):
        (folder / f"{number}.txt").write_bytes(rng.randbytes(size - 1))
    return folder


def write_plan(folder: Path, sources: dict[str, dict[str, Any]], **more: Any) -> Path:
    """plan.yaml over sources; each is common unless it says otherwise."""
    plan = {
        "sources": [{"name": name, "role": "common", **source} for name, source in sources.items()],
        "tasks": [],
        "sizes": ["cpu_8k"],
        "sequence_length": LENGTH,
        "budget": {"tokens": 1e6},
        **more,
    }
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


def recipe_data(
    folder: Path, choose: dict[str, int], rare: tuple[str, ...] = (), **more: Any
) -> dict[str, Any]:
    """A recipe over the MDS folders `folder`/mds/NAME, which must be there."""
    samples = sum(choose.values())
    sources = []
    for name, count in choose.items():
        available = count_tokens(folder / "mds" / name).tokens
        sources.append(
            {
                "name": name,
                "role": "rare" if name in rare else "common",
                "share": count / samples,
                "natural_share": count / samples,
                "rate": 1.0,
                "epochs": count * LENGTH / available,
                "max_epochs": 100.0,
                "tokens": count * LENGTH,
                "tokens_available": available,
                "choose": count,
                "mds": f"mds/{name}",
            }
        )
    return {
        "name": "tested",
        "size": {"name": "tiny", "d_model": 16, "layers": 2, "heads": 4, "d_ffn": 64},
        "block_params": 8336,
        "total_params": 16560,
        "vocab_size": 257,
        "sequence_length": LENGTH,
        "samples": samples,
        "tokens": samples * LENGTH,
        "sources": sources,
        **more,
    }


def write_recipe(folder: Path, choose: dict[str, int], rare: tuple[str, ...] = (), **more: Any) -> Path:
    """recipe.yaml in `folder`."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe_data(folder, choose, rare, **more), sort_keys=False))
    return path
