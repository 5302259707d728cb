"""Many pieces are counted: one after another, or in several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mixplan.documents.plan import Plan
from mixplan.recipes.pieces import Count, Piece, count_piece, is_text
from mixplan.recipes.processes import Processes
from mixplan.recipes.tokenizing import Encoder, check_vocabulary, open_encoder

# Small files go to a process together, or most of the time goes into sending them.
_AT_ONCE_BYTES = 2 << 20
Progress = Callable[[int, int], None]
"""Called with the stored bytes counted so far, and with all of them."""


def count_pieces(
    pieces: Sequence[Piece], plan: Plan, base: Path, workers: int, progress: Progress
) -> list[Count]:
    """The count of every piece; one that cannot be counted has problems.

    Args:
        pieces: what to count.
        plan: gives tokenizer and vocabulary.
        base: folder that paths in it are relative to.
        workers: processes, at most; little text is counted in this one.
        progress: told how far it is.

    Raises:
        InputError: the tokenizer cannot be opened, vocab_size is too small for it, or a process was ended
            from outside.
    """
    total = sum(piece.stored_bytes for piece in pieces)
    counts = [Count()] * len(pieces)
    done = 0
    progress(done, total)
    if not pieces:
        return counts
    encoder = open_encoder(plan.tokenizer, base)
    check_vocabulary(encoder, plan.vocabulary)
    batches = list(grouped(pieces, _AT_ONCE_BYTES))
    work = [([pieces[at] for at in batch], plan.vocabulary) for batch in batches]
    size = sum(piece.stored_bytes for piece in pieces if is_text(piece) or piece.tokens is None)
    with Processes(workers, encoder) as processes:
        for number, found in processes.run(_count_batch, work, size):
            for at, one in zip(batches[number], found, strict=True):
                counts[at] = one
                done += pieces[at].stored_bytes
                progress(done, total)
    return counts


def grouped(pieces: Sequence[Piece], at_once_bytes: int) -> Iterator[list[int]]:
    """Numbers of the pieces that are worked on together: neighbours, until they have so many bytes."""
    held: list[int] = []
    size = 0
    for number, piece in enumerate(pieces):
        held.append(number)
        size += piece.stored_bytes
        if size >= at_once_bytes:
            yield held
            held, size = [], 0
    if held:
        yield held


def _count_batch(encoder: Encoder, work: tuple[list[Piece], int]) -> list[Count]:
    pieces, vocabulary = work
    return [count_piece(piece, encoder, vocabulary) for piece in pieces]
