"""Many pieces are counted: one after another, or in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from mixplan.documents.calibration_spec import Tokenizer
from mixplan.errors import InputError
from mixplan.recipes.pieces import Count, Piece, count_piece
from mixplan.recipes.tokenizing import Encoder, open_encoder

# For so much text one process takes as long as it takes to start others (about 8 s with transformers).
WORTH_PROCESSES_BYTES = 16 << 20
# Small files go to a process together, or most of the time goes into sending them.
_AT_ONCE_BYTES = 2 << 20
Progress = Callable[[int, int], None]
"""Called with the stored bytes counted so far, and with all of them."""


def count_pieces(
    pieces: Sequence[Piece], tokenizer: Tokenizer, base: Path, workers: int, progress: Progress
) -> list[Count]:
    """The count of every piece; one that cannot be counted has problems.

    Args:
        pieces: what to count.
        tokenizer: as in the plan.
        base: folder that its path is relative to.
        workers: processes, at most; little text is counted in this one.
        progress: told how far it is.

    Raises:
        InputError: the tokenizer cannot be opened, or a process was ended from outside.
    """
    total = sum(piece.stored_bytes for piece in pieces)
    counts = [Count()] * len(pieces)
    done = 0
    progress(done, total)
    encoded = any(piece.kind != "parquet tokens" for piece in pieces)
    batches = list(_batches(pieces))
    workers = min(workers, len(batches))
    if workers > 1 and total >= WORTH_PROCESSES_BYTES:
        found = _in_processes(pieces, batches, tokenizer if encoded else None, base, workers)
    else:
        encoder = open_encoder(tokenizer, base) if encoded else None
        found = ((number, count_piece(piece, encoder)) for number, piece in enumerate(pieces))
    for number, one in found:
        counts[number] = one
        done += pieces[number].stored_bytes
        progress(done, total)
    return counts


def _batches(pieces: Sequence[Piece]) -> Iterator[list[int]]:
    """Numbers of the pieces that go to a process together."""
    held: list[int] = []
    size = 0
    for number, piece in enumerate(pieces):
        held.append(number)
        size += piece.stored_bytes
        if size >= _AT_ONCE_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _in_processes(
    pieces: Sequence[Piece], batches: list[list[int]], tokenizer: Tokenizer | None, base: Path, workers: int
) -> Iterator[tuple[int, Count]]:
    """(number of a piece, its count) in the order in which they are done."""
    # Spawned: a forked process could wait without end for a lock that one of the tokenizer's threads held.
    executor = ProcessPoolExecutor(workers, get_context("spawn"), _start, (tokenizer, base))
    try:
        waiting = {executor.submit(_count_batch, [pieces[at] for at in batch]): batch for batch in batches}
        while waiting:
            for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield from zip(waiting.pop(done), done.result(), strict=True)
    except BrokenProcessPool:
        raise InputError(
            "a counting process ended early, perhaps for want of memory (a document is tokenised as a "
            "whole): use fewer --workers"
        ) from None
    finally:
        executor.shutdown(cancel_futures=True)


_encoder: Encoder | None = None
"""Of a counting process, which opens it once."""


def _start(tokenizer: Tokenizer | None, base: Path) -> None:
    global _encoder
    _encoder = open_encoder(tokenizer, base) if tokenizer is not None else None


def _count_batch(pieces: list[Piece]) -> list[Count]:
    return [count_piece(piece, _encoder) for piece in pieces]
