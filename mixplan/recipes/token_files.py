"""Token files: .npy arrays with a NumPy header, or header-less as OLMo writes them, counted by their size.

Shape legend: a file is one array of any shape, of n tokens.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mixplan.errors import InputError

_MAGIC = b"\x93NUMPY"
# How much of a file's start is looked at, to see whether its integers can be token ids.
_LOOKED_AT_BYTES = 1 << 16
# In so few tokens anything may stand.
_TELLING_TOKENS = 64


def tokens_in_file(path: Path, dtype: str, vocabulary: int) -> int:
    """Number of tokens in a token file, as they stand in it.

    Args:
        path: the file.
        dtype: integer type, where there is no header to say it.
        vocabulary: tokens that there are; a wrong `dtype` shows in ids beyond them, or in halves of zeros.

    Raises:
        InputError: the file cannot be read, is cut short, holds no integers, or ids that are no tokens.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_LOOKED_AT_BYTES)
        if start.startswith(_MAGIC):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            tokens, looked_at = array.size, np.asarray(array.reshape(-1)[: _LOOKED_AT_BYTES // 8])
            way_out = "is this a token file?"
        else:
            kind = np.dtype(dtype)
            if size % kind.itemsize:
                raise InputError(
                    f"{path}: {size:,} bytes are not a whole number of {dtype} tokens; set data.dtype to the "
                    "type that the file was written with"
                )
            tokens, way_out = size // kind.itemsize, "set data.dtype to the type it was written with"
            looked_at = np.frombuffer(start[: len(start) // 8 * 8] or start, kind)
            _not_wider(path, looked_at, dtype, vocabulary)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:  # of numpy: a damaged header, an array of objects, fewer bytes than it says
        raise InputError(f"{path}: cannot be read as an array ({error}); copy it anew") from None
    if looked_at.dtype.kind not in "iu":
        raise InputError(f"{path}: holds {looked_at.dtype} values; token ids are integers")
    if looked_at.size and not 0 <= int(looked_at.min()) <= int(looked_at.max()) < vocabulary:
        raise InputError(
            f"{path}: holds the ids {looked_at.min():,} … {looked_at.max():,}, but the vocabulary has "
            f"{vocabulary:,} tokens; {way_out}, or correct tokenizer and vocab_size"
        )
    return tokens


def read_tokens(path: Path, dtype: str, start: int, stop: int) -> np.ndarray:
    """The tokens `start` … `stop` − 1 of a token file [stop − start].

    Raises:
        InputError: the file cannot be read any more.
    """
    try:
        with path.open("rb") as file:
            headed = file.read(len(_MAGIC)) == _MAGIC
        if headed:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            return np.array(array.reshape(-1)[start:stop])
        width = np.dtype(dtype).itemsize
        tokens = np.fromfile(path, dtype, stop - start, offset=start * width)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    if len(tokens) != stop - start:
        raise InputError(f"{path} became shorter while it was read; build again")
    return tokens


def _not_wider(path: Path, looked_at: np.ndarray, dtype: str, vocabulary: int) -> None:
    """Refuse integers of which every second one is only the upper half of a wider one.

    Raises:
        InputError: they are; the count would be twice or four times the truth.
    """
    bits = 8 * looked_at.dtype.itemsize
    if bits > 32 or looked_at.size < _TELLING_TOKENS:
        return
    lower, upper = looked_at[0::2], looked_at[1::2]
    if int(upper.max()) <= (vocabulary - 1) >> bits and lower.max() > upper.max():
        raise InputError(
            f"{path}: every second {dtype} is at most {upper.max()}, as where the integers have {2 * bits} "
            "bits or more; set data.dtype to the type it was written with"
        )
