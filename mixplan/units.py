"""Numbers for people: one way to write counts, times and sizes everywhere."""

from __future__ import annotations

_COUNTS = (("K", 1e3), ("M", 1e6), ("B", 1e9), ("T", 1e12))
_SIZES = (("MiB", 2.0**20), ("GiB", 2.0**30), ("TiB", 2.0**40))
_TIMES = (("min", 60.0), ("h", 3600.0), ("d", 86400.0))


def number(value: float | None, digits: int = 3) -> str:
    """A count: 1.2K, 3.4M, 5.6B, 7.8T; small ones in significant digits; '–' for none."""
    if value is None:
        return "–"
    rounded = float(f"{value:.{digits}g}")  # 999,999 is 1M and not 1e+03K
    if abs(rounded) >= 1e15:
        return f"{rounded:g}"
    unit, size = max((entry for entry in _COUNTS if abs(rounded) >= entry[1]), key=_scale, default=("", 1.0))
    return f"{rounded / size:.{digits}g}{unit}"


def duration(seconds: float) -> str:
    """A time: 4.2 s, 12.3 min, 5.67 h, 8.9 d."""
    return _scaled(seconds, _TIMES, "s", 1.0)


def byte_size(value: float) -> str:
    """A size: 12 KiB, 3.4 MiB, 5.6 GiB, 7.8 TiB."""
    return _scaled(value, _SIZES, "KiB", 1024.0)


def _scale(entry: tuple[str, float]) -> float:
    return entry[1]


def _scaled(value: float, units: tuple[tuple[str, float], ...], least: str, least_size: float) -> str:
    unit, size = max((entry for entry in units if value >= entry[1]), key=_scale, default=(least, least_size))
    return f"{value / size:.3g} {unit}"
