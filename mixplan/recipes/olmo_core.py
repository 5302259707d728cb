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
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from mixplan.documents.calibration_spec import Tokenizer
from mixplan.documents.loading import load
from mixplan.documents.mds_index import count_tokens
from mixplan.documents.mixture import Mixture
from mixplan.documents.olmo_core import OlmoCoreMixture, TokenFile
from mixplan.documents.recipe import Recipe
from mixplan.documents.source_build import SourceBuild
from mixplan.documents.syntax import dump_yaml
from mixplan.errors import InputError
from mixplan.recipes.building import SOURCE
from mixplan.recipes.olmo_core_files import (
    SourceFiles,
    already_there,
    content_digest,
    file_rows,
    write_files,
)
from mixplan.recipes.streams import RECIPE, STREAMS, streaming
from mixplan.recipes.tokenizing import BYTES_END_OF_DOCUMENT
from mixplan.recipes.written import Options, Progress, Written, commented_yaml

MARKER, SOURCES, ADAPTER, DATA = "olmo_core.yaml", "source_mixture.yaml", "olmo_core_loader.py", "data"
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
        InputError: with every problem of every source; the folder holds the other kind of mixture.
    """
    streams = streaming(recipe, folder, options)
    adapter = {ADAPTER: Path(__file__).with_name(ADAPTER).read_text(encoding="utf-8")}
    other = STREAMS if options.with_data else MARKER
    if (folder / other).exists():
        raise InputError(
            f"{folder} holds a mixture of the other kind ({other}), and a trainer could take either: give "
            "another folder with -o"
        )
    if not options.with_data:
        note = "OLMo-core reads the MDS shards; --with-data writes token files of its own kind instead"
        return Written({**streams.texts, **adapter}, [*streams.notes, note], streams.fingerprint)
    mixture = Mixture.model_validate(yaml.safe_load(streams.texts[STREAMS]))
    files = _source_files(recipe, mixture, folder)
    described = _described(recipe, files)
    texts = {
        MARKER: commented_yaml(described, _HEADER),
        SOURCES: _sources(described),
        RECIPE: streams.texts[RECIPE],
        **adapter,
    }
    gigabytes = sum(one.written * one.row_bytes for one in files) / 1e9
    note = f"{sum(len(one.rows) for one in files)} token files, {gigabytes:.3g} GB in {folder / DATA}"
    return Written(texts, [*streams.notes, note], described.fingerprint, partial(_write, files))


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


def _source_files(recipe: Recipe, mixture: Mixture, folder: Path) -> list[SourceFiles]:
    """What is to be written of each source; every problem of every source at once."""
    problems: list[str] = []
    if recipe.samples > _MOST_SAMPLES:
        problems.append(
            f"{recipe.samples:,} samples are more than OLMo-core numbers ({_MOST_SAMPLES:,}); use a larger "
            "sequence_length, or cut the run into phases"
        )
    dtype = smallest_dtype(recipe.vocab_size)
    ends: dict[int, list[str]] = {}
    files: list[SourceFiles] = []
    for name, stream in mixture.streams.items():
        if stream.remote is not None:
            problems.append(
                f"source {name!r} is remote: token files are written from local shards only; copy them "
                "here, or emit without --with-data"
            )
            continue
        shards = Path(stream.local)
        end = _end_of_document(recipe.tokenizer, shards)
        if end is None:
            problems.append(
                f"source {name!r}: which token ends a document is not known ({shards} has no {SOURCE}, and "
                "the recipe's tokenizer does not say); build it with `mixplan build`, or emit without "
                "--with-data"
            )
            continue
        ends.setdefault(end, []).append(name)
        counted = count_tokens(shards)
        written = min(stream.choose, counted.samples)
        index = mixture.index_sha256[name]
        digest = content_digest(index, recipe.shuffle_seed, written, dtype)
        files.append(
            SourceFiles(
                source=name,
                folder=folder / DATA / f"{name}-{digest}",
                shards=shards,
                counted=counted,
                written=written,
                rows=file_rows(written, counted.sequence_length),
                seed=(recipe.shuffle_seed, int(index[:16], 16)),
                dtype=dtype,
                vocab_size=recipe.vocab_size,
                end_of_document_id=end,
            )
        )
    if len(ends) > 1:
        shown = "; ".join(f"{end} in {', '.join(names)}" for end, names in ends.items())
        problems.append(f"the sources end documents with different tokens: {shown}; build them alike")
    if problems:
        raise InputError(problems)
    return files


def _end_of_document(tokenizer: Tokenizer, shards: Path) -> int | None:
    """The token that ends documents: as the shards were built, else as the tokenizer has it."""
    if (shards / SOURCE).is_file():
        return int(load(shards / SOURCE, SourceBuild).end_of_document_id)
    if tokenizer.kind == "bytes":
        return BYTES_END_OF_DOCUMENT
    return tokenizer.end_of_document_id


def _described(recipe: Recipe, files: list[SourceFiles]) -> OlmoCoreMixture:
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


def _sources(described: OlmoCoreMixture) -> str:
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
    """Write the token files that are not there yet."""
    paths: list[Path] = []
    for one in files:
        if already_there(one):
            progress(f"{one.source}: {one.folder} is there already")
        else:
            progress(f"{one.source}: writing {one.written:,} samples to {one.folder}")
            write_files(one)
        paths += one.paths
    return paths
