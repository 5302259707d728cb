"""Format `olmo-core`: a mixture for OLMo-core's trainer, from the MDS shards or from files of its own kind.

Without data, OLMo-core reads the shards: streams.yaml and loader.py as for `streaming`, and
olmo_core_loader.py between them and the trainer. With data, the samples are written as token files, and
source_mixture.yaml is a list of sources that OLMo-core's own mixture takes.

OLMo-core (3.0.0, `SourceMixtureDatasetConfig.build`) rounds per file, not per source, and to whole training
batches. So every file is a source of its own there, whose `target_ratio` gives exactly its samples, and the
mixture is asked for one sequence a batch. Then nothing is left to round.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mixplan.documents.loading import as_yaml
from mixplan.documents.olmo_core import OlmoCoreMixture, TokenFile
from mixplan.documents.recipe import Recipe
from mixplan.documents.source_build import SOURCE
from mixplan.documents.syntax import dump_yaml
from mixplan.errors import InputError
from mixplan.recipes.chosen import Chosen, Shards, chosen_sources
from mixplan.recipes.data_folders import DATA, kept
from mixplan.recipes.olmo_core_files import SourceFiles, content_digest, file_rows, write_files
from mixplan.recipes.streams import RECIPE, streaming
from mixplan.recipes.tokenizing import BYTES_END_OF_DOCUMENT
from mixplan.recipes.written import Options, Progress, Written
from mixplan.units import byte_size

MARKER, SOURCES, ADAPTER = "olmo_core.yaml", "source_mixture.yaml", "olmo_core_loader.py"
# OLMo-core numbers the sequences of a run in 32 bits.
_MOST_SAMPLES = 2**32 - 2
_DTYPES = ("uint8", "uint16", "uint32")

_HEADER = """Made by `mixplan emit --format olmo-core --with-data`.
olmo_core_loader.py loads it, `mixplan verify` checks it. One epoch is the whole run."""
_SOURCES_HEADER = """Sources of OLMo-core's SourceMixtureDatasetConfig, one a file.
SourceMixtureList.from_yaml reads them. Exact only with requested_tokens={tokens} and
global_batch_size={length}: the mixture's own, not the trainer's; it would round to whole batches.
dtype={dtype}, sequence_length={length}, eos_token_id={end}. olmo_core_loader.py sets all of that."""


def olmo_core(recipe: Recipe, folder: Path, options: Options) -> Written:
    """The files for OLMo-core's trainer.

    Args:
        recipe: with absolute MDS folders.
        folder: where the files will be.
        options: what was asked; `with_data` writes token files instead of a mixture over the shards.

    Raises:
        InputError: with every problem of every source.
    """
    adapter = {ADAPTER: Path(__file__).with_name(ADAPTER).read_text(encoding="utf-8")}
    if not options.with_data:
        streams = streaming(recipe, folder, options)
        note = "OLMo-core reads the MDS shards; --with-data writes token files of its own kind instead"
        return replace(streams, texts={**streams.texts, **adapter}, notes=[*streams.notes, note])
    files, notes = _source_files(recipe, folder)
    described = described_mixture(recipe, files)
    texts = {
        MARKER: as_yaml(described, _HEADER),
        SOURCES: source_list(described),
        RECIPE: as_yaml(recipe, "The recipe that the files were made from; `mixplan verify` reads it."),
        **adapter,
    }
    size = byte_size(sum(one.written * one.row_bytes for one in files))
    notes.append(f"{len(described.files)} token files, {size} in {folder / DATA}")
    notes += [
        f"{other} is not of this mixture; remove it if no run needs it"
        for other in sorted({path.parent for path in (folder / DATA).glob("*/*.npy")})
        if other not in {one.folder for one in files}
    ]
    return Written(texts, notes, described.fingerprint, partial(_write, files))


def smallest_dtype(vocab_size: int) -> Any:
    """OLMo-core's rule (`NumpyDatasetConfig.get_dtype`): the largest id, vocab_size − 1, must fit.

    Raises:
        InputError: more than 32 bits would be needed.
    """
    for dtype, bits in zip(_DTYPES, (8, 16, 32), strict=True):
        if vocab_size - 1 < 2**bits:
            return dtype
    raise InputError(f"a vocabulary of {vocab_size:,} does not fit 32 bits; check the recipe's vocab_size")


def target_ratio(tokens: int, requested_tokens: int) -> float:
    """The ratio r of which OLMo-core's int(requested_tokens · r) is exactly `tokens`."""
    ratio = tokens / requested_tokens
    while int(requested_tokens * ratio) < tokens:
        ratio = math.nextafter(ratio, 2.0)
    return min(ratio, 1.0)


def repetition_ratio(tokens: int, held_tokens: int) -> float:
    """The least ratio r ≥ 1 of which OLMo-core's int(held_tokens · r) allows `tokens`."""
    ratio = max(1.0, tokens / held_tokens)
    while int(held_tokens * ratio) < tokens:
        ratio = math.nextafter(ratio, math.inf)
    return ratio


def _source_files(recipe: Recipe, folder: Path) -> tuple[list[SourceFiles], list[str]]:
    """What is to be written of each source, and notes; every problem of every source at once."""
    problems: list[str] = []
    notes: list[str] = []
    chosen: list[Chosen] = []
    try:
        chosen, notes = chosen_sources(recipe, data_needed=True)
    except InputError as error:
        problems += error.problems
    if recipe.samples > _MOST_SAMPLES:
        problems.append(
            f"{recipe.samples:,} samples are more than OLMo-core numbers ({_MOST_SAMPLES:,}); use a larger "
            "sequence_length, or cut the run into phases"
        )
    files: list[SourceFiles] = []
    for source, shards in ((one, one.shards) for one in chosen if one.shards is not None):
        end = shards.end_of_document_id
        if end is None and recipe.tokenizer.kind == "bytes":
            end = BYTES_END_OF_DOCUMENT
        if end is None:
            problems.append(
                f"source {source.name!r}: which token ends a document is not known ({shards.folder} has no "
                f"{SOURCE}, and the recipe's tokenizer does not say); build it with `mixplan build`, or emit "
                "without --with-data"
            )
            continue
        files.append(_files_of(recipe, source, shards, end, folder))
    if problems:
        raise InputError(problems)
    return files, notes


def _files_of(recipe: Recipe, source: Chosen, shards: Shards, end: int, folder: Path) -> SourceFiles:
    dtype = smallest_dtype(recipe.vocab_size)
    written = min(source.choose, shards.counted.samples)
    digest = content_digest(shards.index_sha256, recipe.shuffle_seed, written, dtype)
    return SourceFiles(
        source=source.name,
        folder=folder / DATA / f"{source.name}-{digest}",
        shards=shards.folder,
        counted=shards.counted,
        written=written,
        rows=file_rows(written, shards.counted.sequence_length),
        seed=(recipe.shuffle_seed, int(shards.index_sha256[:16], 16)),
        dtype=dtype,
        vocab_size=recipe.vocab_size,
        end_of_document_id=end,
    )


def described_mixture(recipe: Recipe, files: list[SourceFiles]) -> OlmoCoreMixture:
    """olmo_core.yaml: of each source whole passes over its files, then the first samples of them."""
    choose = {source.name: source.choose for source in recipe.sources}
    listed: list[TokenFile] = []
    for one in files:
        passes, rest = divmod(choose[one.source], one.written)
        for path, rows in zip(one.paths, one.rows, strict=True):
            part = min(rest, rows)
            rest -= part
            listed.append(
                TokenFile(source=one.source, path=str(path), samples=rows, choose=passes * rows + part)
            )
    described = OlmoCoreMixture(
        name=recipe.name,
        fingerprint="",
        samples=recipe.samples,
        sequence_length=recipe.sequence_length,
        tokens=recipe.tokens,
        vocab_size=recipe.vocab_size,
        dtype=smallest_dtype(recipe.vocab_size),
        end_of_document_id=files[0].end_of_document_id,
        seed=recipe.shuffle_seed,
        available={one.source: one.counted.samples for one in files},
        files=listed,
    )
    return described.model_copy(update={"fingerprint": described.digest()})


def source_list(described: OlmoCoreMixture) -> str:
    """source_mixture.yaml, OLMo-core's SourceMixtureList."""
    length = described.sequence_length
    sources = [
        {
            "source_name": Path(file.path).stem,
            "target_ratio": target_ratio(file.choose * length, described.tokens),
            "max_repetition_ratio": repetition_ratio(file.choose * length, file.samples * length),
            "max_source_fraction": 1.0,
            "paths": [file.path],
        }
        for file in described.files
    ]
    header = _SOURCES_HEADER.format(
        tokens=described.tokens, length=length, dtype=described.dtype, end=described.end_of_document_id
    )
    return "".join(f"# {line}\n" for line in header.splitlines()) + dump_yaml({"sources": sources})


def _write(files: list[SourceFiles], progress: Progress) -> list[Path]:
    """Write the token files that are not there yet.

    Raises:
        InputError: as `write_files`; or files are there and are not what was written.
    """
    paths: list[Path] = []
    for one in files:
        if one.folder.exists():
            progress(f"{one.source}: checking {one.folder}, which is there already")
            kept(one.folder)
        else:
            progress(f"{one.source}: writing {one.written:,} samples to {one.folder}")
            write_files(one)
        paths += one.paths
    return paths
