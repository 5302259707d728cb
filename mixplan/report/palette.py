"""Colours: one per size from a perceptually even ramp, one per step of skill; light and dark."""

from __future__ import annotations

# Ten even steps of viridis (matplotlib's default map, CC0): ordered for every kind of colour vision.
_VIRIDIS = (
    "440154",
    "482878",
    "3e4989",
    "31688e",
    "26828e",
    "1f9e89",
    "35b779",
    "6ece58",
    "b5de2b",
    "fde725",
)
_SKILL_LIGHT = ("f4f6f8", "9cc3e0", "0b4a80")
_SKILL_DARK = ("20262d", "2f6ea3", "9bd3ff")
LIGHT_PART, DARK_PART = (0.0, 0.80), (0.34, 1.0)  # of viridis: what stands out from the page's background


def ramp(colours: tuple[str, ...], at: float) -> str:
    """The colour at share `at` (0…1) of an evenly spaced list of hex colours, linear in sRGB."""
    place = at * (len(colours) - 1)
    first = min(int(place), len(colours) - 2)
    part = place - first
    low, high = (bytes.fromhex(colours[first + i]) for i in (0, 1))
    return "#" + "".join(f"{round(a + (b - a) * part):02x}" for a, b in zip(low, high, strict=True))


def rules(sizes: int, steps: int) -> str:
    """CSS variables for `sizes` sizes (.s0 …) and skill steps 0…`steps` (.h0 …), dark scheme included."""
    light = _variables(sizes, steps, LIGHT_PART, _SKILL_LIGHT)
    dark = _variables(sizes, steps, DARK_PART, _SKILL_DARK)
    own = "".join(f".s{i}{{--own:var(--size{i})}}" for i in range(sizes))
    own += "".join(f".h{i}{{--own:var(--skill{i})}}" for i in range(steps + 1))
    return f":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{own}\n"


def _variables(sizes: int, steps: int, part: tuple[float, float], skill: tuple[str, ...]) -> str:
    along = [part[0] + (part[1] - part[0]) * (i / (sizes - 1) if sizes > 1 else 0.5) for i in range(sizes)]
    out = [f"--size{i}:{ramp(_VIRIDIS, at)}" for i, at in enumerate(along)]
    out += [f"--skill{i}:{ramp(skill, i / steps)}" for i in range(steps + 1)]
    return ";".join(out)
