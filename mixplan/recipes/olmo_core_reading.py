"""Is what OLMo-core makes of its token files what the recipe says?

OLMo-core's own mixture is built from source_mixture.yaml, its own loader draws the order of the run, and its
dataset reads from every file. No more is read than the files' digests need.

Shape legend: n = sequences of the run, F = entries of OLMo-core's dataset: one for every pass over a file.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixplan.documents.loading import load_both
from mixplan.documents.mixture import DatasetSettings, Mixture, StreamSettings
from mixplan.documents.olmo_core import OlmoCoreMixture, TokenFile
from mixplan.documents.recipe import Recipe
from mixplan.errors import InputError
from mixplan.recipes.comparing import compare
from mixplan.recipes.hashing import file_sha256
from mixplan.recipes.olmo_core import MARKER, SOURCES
from mixplan.recipes.olmo_core_files import HELD
from mixplan.recipes.streams import RECIPE
from mixplan.recipes.verified import Resumption, Verification


@dataclass(frozen=True)
class _Order:
    """Sequences in the order of training; see `comparing.Order`."""

    sample_ids: np.ndarray
    stream: np.ndarray
    offsets: np.ndarray
    available: np.ndarray


def verify_olmo_core(
    folder: Path, progress: Callable[[str], None] = lambda _: None, hashes: bool = True
) -> Verification:
    """Check the token files, build OLMo-core's mixture over them, and compare its order with the recipe.

    Args:
        folder: what `emit --format olmo-core --with-data` wrote.
        progress: called with a line now and then.
        hashes: read the files and compare digests, not only presence and size.

    Raises:
        InputError: documents are missing or broken, or OLMo-core is not installed.
    """
    folder = Path(folder)
    described, recipe = _documents(folder)
    loader = _loader()
    problems = _disagreements(described, recipe)
    hashed = 0
    for file in described.files:
        progress(f"{file.source}: checking {file.path}")
        found = _file_problem(described, file, hashes)
        hashed += hashes and found is None
        problems += [] if found is None else [f"source {file.source!r}: {found}"]
    answer: dict[str, Any] = {
        "name": described.name,
        "fingerprint": described.fingerprint,
        "samples_expected": described.samples,
        "shards_checked": len(described.files),
        "shards_hashed": hashed,
    }
    if problems:
        return Verification(samples=0, problems=problems, **answer)
    progress(f"building OLMo-core's mixture of {described.samples:,} sequences")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # where OLMo-core shows progress, as empty lines
            dataset = loader.token_files(folder).build()
        loader.check_amounts(dataset, described.model_dump(mode="json"))
    except Exception as error:  # whatever OLMo-core raises is the answer
        problem = f"OLMo-core does not build the mixture from {folder / SOURCES}: {error}"
        return Verification(samples=0, problems=[problem], **answer)
    with tempfile.TemporaryDirectory(prefix="mixplan-verify-") as scratch:
        order, resumption = _drawn(dataset, described, loader, Path(scratch))
    sources, wrong, uneven = compare(_as_streams(described), recipe, order)
    wrong += _misread(dataset, described)
    if not resumption.same_order:
        wrong.append("stopped in the middle and resumed, OLMo-core's loader goes on with other sequences")
    if not resumption.other_state_refused:
        wrong.append("OLMo-core's loader takes the state of another mixture for one of this")
    return Verification(
        samples=len(order.sample_ids),
        sources=sources,
        problems=wrong,
        warnings=uneven,
        checked="plan",
        resumption=resumption,
        **answer,
    )


def _loader() -> Any:
    """The emitted loader, which needs OLMo-core."""
    try:
        from mixplan.recipes import olmo_core_loader
    except ModuleNotFoundError as error:
        raise InputError(
            f"verify reads token files with OLMo-core, and {error.name} is not installed: "
            "pip install ai2-olmo-core"
        ) from None
    return olmo_core_loader


def _documents(folder: Path) -> tuple[OlmoCoreMixture, Recipe]:
    missing = [name for name in (MARKER, SOURCES, RECIPE) if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} holds no {' and no '.join(missing)}; `mixplan emit --format olmo-core --with-data` "
            "writes them"
        )
    return load_both((folder / MARKER, OlmoCoreMixture), (folder / RECIPE, Recipe))


def _disagreements(described: OlmoCoreMixture, recipe: Recipe) -> list[str]:
    """Where olmo_core.yaml itself is not what the recipe says."""
    problems: list[str] = []
    if described.digest() != described.fingerprint:
        problems.append(
            f"{MARKER} was changed after it was emitted: its fingerprint is {described.digest()[:12]}…, not "
            f"{described.fingerprint[:12]}…; emit again"
        )
    if described.sequence_length != recipe.sequence_length:
        problems.append(
            f"{MARKER} has samples of {described.sequence_length} tokens, not {recipe.sequence_length}"
        )
    taken: dict[str, int] = {}
    for file in described.files:
        taken[file.source] = taken.get(file.source, 0) + file.choose
    planned = {source.name: source.choose for source in recipe.sources}
    problems += [
        f"source {name!r}: {MARKER} takes {taken.get(name, 0):,} samples, the recipe says "
        f"{planned.get(name, 0):,}"
        for name in {**planned, **taken}
        if taken.get(name, 0) != planned.get(name, 0)
    ]
    return problems


def _file_problem(described: OlmoCoreMixture, file: TokenFile, hashes: bool) -> str | None:
    """What is wrong with a file, by its size and, with `hashes`, its digest."""
    path = Path(file.path)
    wanted = file.samples * described.sequence_length * np.dtype(described.dtype).itemsize
    if not path.is_file():
        return f"{path} is missing; emit again with --with-data"
    if path.stat().st_size != wanted:
        return f"{path} has {path.stat().st_size:,} bytes, not {wanted:,}; remove its folder and emit again"
    try:
        digest = json.loads((path.parent / HELD).read_text(encoding="utf-8"))[path.name]["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{path.parent / HELD} is missing or damaged; remove its folder and emit again"
    if hashes and file_sha256(path) != digest:
        return f"{path}: its content is not what was written; remove its folder and emit again"
    return None


def _drawn(dataset: Any, described: OlmoCoreMixture, loader: Any, scratch: Path) -> tuple[_Order, Resumption]:
    """The order of the run, and whether it is kept over a stop in the middle."""
    from olmo_core.data.data_loader import NumpyDataLoaderBase

    def fresh() -> Any:
        made = NumpyDataLoaderBase.wrap_numpy_dataset(
            dataset,
            global_batch_size=described.sequence_length,  # the order is the same with every batch size
            collator=loader.collator(dataset, described.model_dump(mode="json")),
            work_dir=scratch,
            seed=described.seed,
        )
        made.reshuffle(epoch=1, in_memory=True)
        return made

    whole = fresh()
    indices = np.asarray(whole.get_global_indices(), np.int64)  # [n]
    whole.batches_processed = len(indices) // 2
    whole.tokens_processed = whole.batches_processed * described.sequence_length
    state = whole.state_dict()
    again = fresh()
    again.load_state_dict(state)
    rest = np.asarray(again._get_local_instance_indices(again.get_global_indices()), np.int64)
    try:
        fresh().load_state_dict({**state, "dataset_fingerprint": "another"})
        refused = False
    except RuntimeError:
        refused = True
    resumption = Resumption(
        stopped_at_samples=whole.batches_processed,
        samples=len(rest),
        samples_left=len(indices) - whole.batches_processed,
        same_order=np.array_equal(rest, indices[whole.batches_processed :]),
        other_state_refused=refused,
    )
    return _order(dataset, described, indices), resumption


def _order(dataset: Any, described: OlmoCoreMixture, indices: np.ndarray) -> _Order:
    """Sequences by the source and the sample of it that each is."""
    available = np.array(list(described.available.values()), np.int64)
    offsets = np.concatenate([[0], np.cumsum(available)[:-1]])
    first: dict[str, int] = {}  # sample id of each file's first sequence
    source: dict[str, int] = {}
    held = dict.fromkeys(described.available, 0)
    for file in described.files:
        number = list(described.available).index(file.source)
        source[file.path] = number
        first[file.path] = int(offsets[number]) + held[file.source]
        held[file.source] += file.samples
    ids, streams = [], []
    for path, (start, end) in zip(dataset.paths, dataset.offsets, strict=True):
        ids.append(first[str(path)] + np.arange(end - start))
        streams.append(np.full(end - start, source[str(path)]))
    return _Order(np.concatenate(ids)[indices], np.concatenate(streams)[indices], offsets, available)


def _misread(dataset: Any, described: OlmoCoreMixture) -> list[str]:
    """Files of which OLMo-core's dataset reads something else than the sequences that stand there."""
    problems = []
    for path, (start, end) in zip(dataset.paths, dataset.offsets, strict=True):
        rows = np.memmap(path, described.dtype, "r").reshape(-1, described.sequence_length)
        for at in {start, end - 1}:
            if not np.array_equal(dataset[at]["input_ids"].numpy(), rows[at - start]):
                problems.append(
                    f"OLMo-core reads other tokens than stand in {path} at sequence {at - start:,}"
                )
    return problems


def _as_streams(described: OlmoCoreMixture) -> Mixture:
    """The mixture in the form that orders are compared in."""
    streams = {}
    for name in described.available:
        files = [file for file in described.files if file.source == name]
        place = str(Path(files[0].path).parent)
        streams[name] = StreamSettings(local=place, choose=sum(file.choose for file in files))
    return Mixture(
        name=described.name,
        fingerprint=described.fingerprint,
        samples=described.samples,
        sequence_length=described.sequence_length,
        tokens=described.tokens,
        dataset=DatasetSettings(shuffle_seed=described.seed, shuffle_block_size=described.samples),
        streams=streams,
    )
