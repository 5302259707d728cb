"""How many sequences of each source OLMo-core takes, by three ways of writing the same recipe.

    OMP_NUM_THREADS=1 python benchmarks/olmo_core_mixtures.py > benchmarks/olmo_core_mixtures.md

emitted: what `emit --format olmo-core --with-data` writes. plain: one source of OLMo-core's source mixture
for each source of the recipe, its share as target_ratio, and the trainer's global batch. composable:
MixingInstanceSource with the shares as ratios and num_instances. Random recipes (2 to 50 sources of up to
10⁸ tokens, 0.01 to 20 epochs); files are there by their sizes alone. Then how fast token files are written,
and how long verify takes for ten million sequences.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sys
import tempfile
import time
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

from olmo_core_making import sparse_files, sparse_mixture

from mixplan.documents.loading import save
from mixplan.documents.mds_index import count_tokens
from mixplan.documents.olmo_core import OlmoCoreMixture
from mixplan.recipes import olmo_core_files, olmo_core_loader
from mixplan.recipes.olmo_core import repetition_ratio, source_list
from mixplan.recipes.olmo_core_files import HELD, SourceFiles, file_rows, write_files
from mixplan.recipes.olmo_core_reading import verify_olmo_core

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


def written() -> list[float]:
    """Million tokens a second of core time: 64 Mi tokens in samples of 4,096, as uint32; three turns."""
    from mixplan.compat import ensure_torchvision_imports

    ensure_torchvision_imports()
    from streaming import MDSWriter

    length, samples = 4096, 16384
    rng = np.random.default_rng(0)
    rates = []
    with tempfile.TemporaryDirectory() as scratch:
        shards = Path(scratch) / "shards"
        columns = {"tokens": f"ndarray:int32:{length}"}
        with MDSWriter(out=str(shards), columns=columns, hashes=["xxh3_64"], progress_bar=False) as writer:
            for _ in range(samples):
                tokens = rng.integers(0, 100277, length).astype(np.int32)
                tokens[7] = 100257
                writer.write({"tokens": tokens})
        for turn in range(3):
            wanted = SourceFiles(
                source="web",
                folder=Path(scratch) / f"web-{turn}",
                shards=shards,
                counted=count_tokens(shards),
                written=samples,
                rows=file_rows(samples, length),
                seed=(0, turn),
                dtype="uint32",
                vocab_size=100278,
                end_of_document_id=100257,
            )
            start = time.process_time()
            write_files(wanted)
            rates.append(samples * length / (time.process_time() - start) / 1e6)
    return rates


def verified() -> tuple[int, float]:
    """Sequences of a run, and the core seconds that verify takes for it."""
    available, choose = [7_000_000, 2_000_000, 20_000], [6_900_000, 3_000_000, 100_000]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        recipe, described = sparse_files(folder, 8, 100278, available, choose)
        for file in described.files:
            path = Path(file.path)
            held = {path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}}
            (path.parent / HELD).write_text(json.dumps(held))
        save(described, folder / "olmo_core.yaml")
        save(recipe, folder / "recipe.yaml")
        (folder / "source_mixture.yaml").write_text(source_list(described))
        start = time.process_time()
        found = verify_olmo_core(folder)
        seconds = time.process_time() - start
        assert found.passed, found.problems
        return found.samples, seconds


def main() -> None:
    """Print one row a way, then the two speeds."""
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

    olmo_core_files.FILE_TOKENS = 2**31
    rates = written()
    print(
        f"\nToken files are written at {min(rates):.0f} to {max(rates):.0f} million tokens a second of core "
        "time, the comparison of the shards with their index and the digest of the files included."
    )
    sequences, seconds = verified()
    print(f"\n`verify` of {sequences:,} sequences of 8 tokens in 3 files: {seconds:.0f} s of core time.")


if __name__ == "__main__":
    main()
