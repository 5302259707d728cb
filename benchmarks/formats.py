"""What other trainers make of a recipe's weights, and how fast `emit --with-data` writes their token files.

    python benchmarks/formats.py > benchmarks/formats.md

Needs megatron-core. About two minutes on one core.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import yaml

from mixplan.compat import ensure_torchvision_imports
from mixplan.recipes.emitting import emit
from mixplan.recipes.megatron import index
from mixplan.recipes.written import Options

RECIPES, MOST_SOURCES = 2000, 50
LENGTH, SAMPLES = 16, 2000
"""Of the source whose tokens are counted; every token of it has an id of its own."""
SPEED_LENGTH, SPEED_SAMPLES, VOCABULARY = 2048, {"web": 20_000, "rare": 1_000}, 100_278
SPEED_CHOOSE = {"web": 20_000, "rare": 10_000}


def blending() -> None:
    """Counts and prefixes of Megatron's blend over random recipes; nanotron has the same function."""
    from megatron.core.datasets import helpers

    rng = np.random.default_rng(0)
    worst, worst_prefix = 0, 0.0
    for number in range(RECIPES):
        sources = int(rng.integers(2, MOST_SOURCES + 1))
        shares = rng.dirichlet(np.full(sources, 10 ** rng.uniform(-1, 1)))
        choose = np.maximum(1, np.floor(shares * 10 ** rng.uniform(2, 5))).astype(np.int64)
        samples = int(choose.sum())
        source, place = np.zeros(samples, np.int16), np.zeros(samples, np.int64)
        helpers.build_blending_indices(source, place, choose / samples, sources, samples, False)
        worst = max(worst, int(np.abs(np.bincount(source, minlength=sources) - choose).max()))
        if number % 20 == 0:
            for one in range(sources):
                lag = np.cumsum(source == one) - choose[one] / samples * np.arange(1, samples + 1)
                worst_prefix = max(worst_prefix, float(np.abs(lag).max()))
    print("## Blending by lag\n")
    print(f"{RECIPES:,} random recipes of 2 to {MOST_SOURCES} sources, 100 to 100,000 samples:")
    print(f"realised − `choose` at the end of the run: at most {worst} samples; at any moment before,")
    print(f"realised − share × samples so far: at most {worst_prefix:.2f} (every twentieth recipe).\n")


def repetition(folder: Path) -> None:
    """How often Megatron reads each token of a source."""
    from megatron.core.datasets.blended_megatron_dataset_builder import BlendedMegatronDatasetBuilder
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.utils import get_blend_from_list

    rng = np.random.default_rng(0)
    tokens = SAMPLES * LENGTH
    tokenizer = SimpleNamespace(eod=2**16 - 1, vocab_size=2**16, unique_identifiers={})
    for name in ("counted", "other"):
        ends = np.unique(np.append(rng.integers(1, tokens, tokens // 30), tokens))
        np.arange(tokens, dtype=np.uint16).tofile(folder / f"{name}.bin")
        (folder / f"{name}.idx").write_bytes(index(np.diff(ends, prepend=0), "uint16"))
    print("## How often Megatron reads a token\n")
    print(f"A source of {SAMPLES:,} samples of {LENGTH} tokens, beside another.")
    print("Part of its tokens that are read so often:\n")
    print("| epochs in the recipe | 0 × | 1 × | 2 × | 3 × | 4 × | 7 × | 8 × | 9 × |")
    print("|---|---|---|---|---|---|---|---|---|")
    for epochs in (0.5, 1.0, 1.5, 1.85, 2.0, 3.9, 8.0):
        choose = round(epochs * SAMPLES)
        run = choose + SAMPLES // 2
        blend = [str(choose), str(folder / "counted"), str(run - choose), str(folder / "other")]
        config = GPTDatasetConfig(
            random_seed=1,
            sequence_length=LENGTH,
            blend=get_blend_from_list(blend),
            split="100,0,0",
            tokenizer=tokenizer,  # type: ignore[arg-type]
            reset_position_ids=False,
            reset_attention_mask=False,
            eod_mask_loss=False,
            create_attention_mask=False,
            mid_level_dataset_surplus=0.005,
        )
        blended, *_ = BlendedMegatronDatasetBuilder(GPTDataset, [run, 0, 0], lambda: True, config).build()
        of_it = np.flatnonzero(blended.dataset_index[:run] == 0)
        assert len(of_it) == choose
        times = np.zeros(tokens, np.int64)
        for at in of_it:
            np.add.at(times, blended[int(at)]["tokens"].numpy(), 1)
        parts = [float((times == often).mean()) for often in (0, 1, 2, 3, 4, 7, 8, 9)]
        print(f"| {epochs:g} | " + " | ".join(f"{part:.2%}" if part else "" for part in parts) + " |")
    print()


def speed(folder: Path) -> None:
    """Tokens a second that are written for other trainers."""
    ensure_torchvision_imports()
    from streaming import MDSWriter

    rng = np.random.default_rng(0)
    for name, samples in SPEED_SAMPLES.items():
        column = {"tokens": f"ndarray:int32:{SPEED_LENGTH}"}
        with MDSWriter(out=str(folder / "mds" / name), columns=column, hashes=["xxh3_64"]) as shards:
            for _ in range(samples):
                shards.write({"tokens": rng.zipf(1.2, SPEED_LENGTH).clip(0, VOCABULARY - 1).astype(np.int32)})
    run = sum(SPEED_CHOOSE.values())
    sources = [
        {
            **{"name": name, "role": "common", "mds": f"mds/{name}", "choose": choose, "rate": 1.0},
            **{"share": choose / run, "natural_share": choose / run, "epochs": choose / SPEED_SAMPLES[name]},
            **{"tokens": choose * SPEED_LENGTH, "tokens_available": SPEED_SAMPLES[name] * SPEED_LENGTH},
            "max_epochs": 100.0,
        }
        for name, choose in SPEED_CHOOSE.items()
    ]
    recipe = {
        "name": "speed",
        "size": {"name": "tiny", "d_model": 16, "layers": 2, "heads": 4, "d_ffn": 64},
        **{"block_params": 8336, "total_params": 16560, "vocab_size": VOCABULARY},
        "tokenizer": {"kind": "none", "vocab_size": VOCABULARY, "end_of_document_id": 5},
        **{"sequence_length": SPEED_LENGTH, "samples": run, "tokens": run * SPEED_LENGTH, "sources": sources},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    print("## Writing\n")
    print("`emit --with-data`, shards of int32 checked by xxh3_64, vocabulary 100,278, one core:\n")
    print("| format | tokens written | seconds | million tokens a second |\n|---|---|---|---|")
    for format in ("megatron", "nanotron", "huggingface"):
        since = time.perf_counter()
        emit(folder / "recipe.yaml", folder / format, format, Options(with_data=True))
        took = time.perf_counter() - since
        samples = run if format == "nanotron" else sum(SPEED_SAMPLES.values())
        tokens = samples * SPEED_LENGTH
        print(f"| {format} | {tokens:,} | {took:.1f} | {tokens / took / 1e6:.0f} |")


def main() -> None:
    warnings.filterwarnings("ignore")
    print("# What other trainers make of a recipe\n\n`python benchmarks/formats.py`; megatron-core 0.16.1.\n")
    blending()
    with tempfile.TemporaryDirectory() as folder:
        repetition(Path(folder))
        speed(Path(folder))


if __name__ == "__main__":
    main()
