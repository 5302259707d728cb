"""Numbers and names as a reader wants them."""

from __future__ import annotations

import math
import re

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NARROW = "\u202f"  # narrow no-break space, between a number and its unit


def count(value: float | None, digits: int = 3) -> str:
    """8336 → `8.34 K`; 1.07e9 → `1.07 B`; small numbers stay; None or NaN → `–`."""
    if value is None or not math.isfinite(value):
        return "–"
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size * (1 - 0.5 * 10**-digits) and abs(value) < 1e15:
            return f"{_significant(value / size, digits)}{NARROW}{unit}"
    return power(value, digits) if abs(value) >= 1e15 else _significant(value, digits)


def power(value: float | None, digits: int = 2) -> str:
    """2.3e-4 → `2.3·10⁻⁴`; an exact power of ten → `10⁻⁴`; None or NaN → `–`."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    tens = f"10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return tens if mantissa == "1" else f"{mantissa.replace('-', '−')}·{tens}"


def fixed(value: float | None, decimals: int = 2) -> str:
    """0.8349 → `0.83`; a minus sign instead of a hyphen, none before zero; None or NaN → `–`."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def signed(value: float | None, decimals: int = 3) -> str:
    """As `fixed`, with a plus sign on positive numbers."""
    text = fixed(value, decimals)
    return text if text.startswith(("−", "–")) or float(text) == 0 else f"+{text}"


def general(value: float | None, digits: int = 3) -> str:
    """Fixed notation while it is short, powers of ten otherwise."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return _significant(value, digits).replace("-", "−")
    return power(value, digits)


def percent(share: float | None) -> str:
    """0.1234 → `12 %`; one decimal near the ends, two digits below 0.1 %; never 0 or 100 % by rounding."""
    if share is None or not math.isfinite(share):
        return "–"
    points = 100 * share
    if points == 0 or points == 100:
        return f"{points:.0f}{NARROW}%"
    if abs(points) < 0.1:
        return f"{_significant(points, 2)}{NARROW}%"
    decimals = 1 if abs(points) < 9.95 or abs(points) > 90.05 else 0
    if 99.95 <= points < 100:
        return f"> 99.9{NARROW}%"
    return f"{points:.{decimals}f}".removesuffix(".0").replace("-", "−") + f"{NARROW}%"


def one_in(frequency: float) -> str:
    """An injection frequency in words: 2.3e-4 → `1 in 4.35 K tokens`."""
    return f"1 in {count(1 / frequency)} tokens"


def kind_name(family: str, complexity: float) -> str:
    """A task kind: `modular addition (5)`. The complexity's meaning is the family's own."""
    return f"{re.sub(r'_+', ' ', family)} ({complexity:g})"


def listing(items: list[str], most: int = 6) -> str:
    """`a, b and c`; a long list is cut and says so."""
    shown = items if len(items) <= most else [*items[: most - 1], f"{len(items) - most + 1} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""


def plural(number: int, noun: str, many: str | None = None) -> str:
    """`1 run`, `2 runs`."""
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"


def _significant(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value)) + 1e-12), 0)
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
