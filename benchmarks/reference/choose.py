"""The largest ladder that fits a time, by measured speed.

    python choose.py CALIBRATION SECONDS SPEED.json ... > calibration.yaml

Rungs join smallest first, each with all its seeds, while the sum of tokens ÷ measured tokens/s over all runs
stays within the time; the measurements that runs make on the way are allowed for with `_SHARE`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from mixplan.documents.shapes import PRESETS

_SHARE = 0.5
"""Of the time that is left, for training: the rest is for starting, compiling, measuring and collecting."""


def main() -> None:
    """Print the calibration with the rungs that fit."""
    spec = yaml.safe_load(Path(sys.argv[1]).read_text(encoding="utf-8"))
    seconds = _SHARE * float(sys.argv[2])
    rates = {}
    for path in map(Path, sys.argv[3:]):
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            rates[row["rung"]] = row["calibrate"]["tokens_per_second"]
    tokens = max(spec["horizons"]["tokens"]) * len(spec.get("seeds", [0]))
    chosen: list[str] = []
    needed = 0.0
    for rung in sorted(spec["ladder"], key=lambda name: PRESETS[name].block_params):
        if rung not in rates or needed + tokens / rates[rung] > seconds:
            break
        needed += tokens / rates[rung]
        chosen.append(rung)
    if not chosen:
        raise SystemExit(f"not one rung of {spec['ladder']} fits {seconds:.0f} s at {rates} tokens/s")
    print(f"chosen: {chosen}, {needed:.0f} s of training in {seconds:.0f} s", file=sys.stderr)
    print(yaml.safe_dump({**spec, "ladder": chosen}, sort_keys=False, allow_unicode=True))


if __name__ == "__main__":
    main()
