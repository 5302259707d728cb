"""How many sequences of each source OLMo-core takes, by three ways of writing the same recipe.

    OMP_NUM_THREADS=1 python benchmarks/olmo_core_mixtures.py

emitted: what `emit --format olmo-core --with-data` writes. plain: one source of OLMo-core's source mixture
for each source of the recipe, its share as target_ratio, and the trainer's global batch. composable:
MixingInstanceSource with the shares as ratios and num_instances. Random recipes (2 to 50 sources of up to
10⁸ tokens, 0.01 to 20 epochs); files are there by their sizes alone.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import yaml
from olmo_core.data import NumpyFSLDatasetConfig, TokenizerConfig
from olmo_core.data.composable import MixingInstanceSource, MixingInstanceSourceSpec
from olmo_core.data.composable.random_instance_source import RandomInstanceSource
from olmo_core.data.source_mixture import (
    SourceMixtureConfig,
    SourceMixtureDatasetConfig,
    SourceMixtureList,
)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from olmo_core_making import sparse_mixture

from mixplan.documents.olmo_core import OlmoCoreMixture
from mixplan.recipes import olmo_core_files, olmo_core_loader
from mixplan.recipes.olmo_core import repetition_ratio, source_list

RECIPES = 60
BATCH_SEQUENCES = 512
FILE_TOKENS = 2**24


def chosen(described: OlmoCoreMixture) -> dict[str, int]:
    """Sequences of each source that the recipe takes."""
    counts = dict.fromkeys(described.available, 0)
    for file in described.files:
        counts[file.source] += file.choose
    return counts


def counted(dataset: object, described: OlmoCoreMixture) -> dict[str, int]:
    """Sequences of each source in an OLMo-core dataset over its files."""
    source = {file.path: file.source for file in described.files}
    counts = dict.fromkeys(described.available, 0)
    for path, (start, end) in zip(dataset.paths, dataset.offsets, strict=True):  # type: ignore[attr-defined]
        counts[source[str(path)]] += end - start
    return counts


def emitted(described: OlmoCoreMixture, folder: Path) -> dict[str, int]:
    (folder / "olmo_core.yaml").write_text(yaml.safe_dump(described.model_dump(mode="json")))
    (folder / "source_mixture.yaml").write_text(source_list(described))
    return counted(olmo_core_loader.token_files(folder).build(), described)


def plain(described: OlmoCoreMixture, folder: Path) -> dict[str, int]:
    sources = []
    for name, choose in chosen(described).items():
        files = [file for file in described.files if file.source == name]
        held = sum(file.samples for file in files)
        share, most = choose / described.samples, repetition_ratio(choose, held)
        paths = [file.path for file in files]
        sources.append(SourceMixtureConfig(name, share, paths, max_repetition_ratio=most * 1.001))
    mixture = SourceMixtureDatasetConfig(
        source_list=SourceMixtureList(sources),
        requested_tokens=described.tokens,
        global_batch_size=BATCH_SEQUENCES * described.sequence_length,
        render_tables=False,
        quiet=True,
    )
    config = NumpyFSLDatasetConfig.from_src_mix(
        mixture,
        tokenizer=TokenizerConfig(vocab_size=described.vocab_size, eos_token_id=0, pad_token_id=0),
        sequence_length=described.sequence_length,
        dtype=described.dtype,
    )
    return counted(config.build(), described)


def composable(described: OlmoCoreMixture, folder: Path) -> dict[str, int]:
    tokenizer = TokenizerConfig(vocab_size=described.vocab_size, eos_token_id=0, pad_token_id=0)
    specs = []
    for name, choose in chosen(described).items():
        held = sum(file.samples for file in described.files if file.source == name)
        source = RandomInstanceSource(
            tokenizer=tokenizer,
            sequence_length=described.sequence_length,
            avg_document_length=8,
            num_instances=held,
            seed=0,
            work_dir=folder,
            label=name,
        )
        most = repetition_ratio(choose, held) * 1.001
        specs.append(MixingInstanceSourceSpec(source, choose / described.samples, most, label=name))
    mixed = MixingInstanceSource(*specs, work_dir=folder, seed=0, num_instances=described.samples)
    sizes = [len(source) for source in mixed.sampled_sources]
    return dict(zip(described.available, sizes, strict=True))


def main() -> None:
    """Print one row a way."""
    olmo_core_files.FILE_TOKENS = FILE_TOKENS
    ways = {"emitted": emitted, "plain": plain, "composable": composable}
    off: dict[str, list[list[int]]] = {name: [] for name in ways}
    relative: dict[str, float] = dict.fromkeys(ways, 0.0)
    failed = dict.fromkeys(ways, 0)
    for seed in range(RECIPES):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            described = sparse_mixture(folder, np.random.default_rng(seed))[1]
            wanted = chosen(described)
            for name, way in ways.items():
                with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    try:
                        got = way(described, folder)
                    except Exception as error:
                        failed[name] += 1
                        print(f"{name}, recipe {seed}: {error}"[:160], file=sys.stderr)
                        continue
                off[name].append([got[source] - wanted[source] for source in wanted])
                worst = max(abs(got[source] - wanted[source]) / wanted[source] for source in wanted)
                relative[name] = max(relative[name], worst)
    print(
        f"{RECIPES} recipes, files of at most {FILE_TOKENS:,} tokens, {BATCH_SEQUENCES} sequences a batch\n"
    )
    print("| way | refused | exact | most sequences off, a source | most of a source off | off, a run |")
    print("|---|---|---|---|---|---|")
    for name, rows in off.items():
        exact = sum(not any(row) for row in rows)
        most = max((max(map(abs, row)) for row in rows), default=0)
        total = max((abs(sum(row)) for row in rows), default=0)
        print(
            f"| {name} | {failed[name]} | {exact} of {len(rows)} | {most} | {relative[name]:.3g} | {total} |"
        )


if __name__ == "__main__":
    main()
