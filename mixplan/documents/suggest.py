"""did you mean …?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when something known is close to what was given, else up to 12 known names."""
    names = sorted(str(name) for name in known)
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    if not names:
        return ""
    more = "" if len(names) <= 12 else f", … ({len(names)} in all)"
    return f"; known: {', '.join(names[:12])}{more}"
