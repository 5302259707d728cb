"""How long `mixplan verify --plan-only` takes for a run of many samples.

    python benchmarks/plan_speed.py --samples 10000000 --sources 30

The shards are files of the right size with nothing in them, as the plan is checked without reading them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

LENGTH = 16
COMMON_SHARD, RARE_SHARD = 8192, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--sources", type=int, default=30, help="a third of them rare")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(folder, given.samples, given.sources)))
        run(["emit", str(folder / "recipe.yaml"), "-o", str(folder / "mixture")])
        shards = sum(1 for _ in folder.glob("mds/*/*.mds"))
        seconds, cpu, peak, said = run(["verify", str(folder / "mixture"), "--plan-only", "--json"])
    found = json.loads(said)
    ratios = [source["spread"]["cv_ratio"] for source in found["sources"] if source["role"] == "rare"]
    print(
        f"{found['samples']:,} samples of {len(found['sources'])} sources in {shards:,} shards: "
        f"{seconds:.1f} s, {cpu:.1f} s of CPU, {peak / 2**30:.2f} GiB; passed: {found['passed']}; "
        f"cv ratio of the {len(ratios)} rare sources {min(ratios):.2f} to {max(ratios):.2f}"
    )


def recipe(folder: Path, samples: int, sources: int) -> dict[str, Any]:
    """Two thirds common sources with 0.5 to 1.5 epochs, the rest rare, of 0.02 % to 0.2 %, with 1 to 4."""
    rng = np.random.default_rng(0)
    rare = sources // 3
    chosen = {f"rare{i}": int(samples * rng.uniform(2e-4, 2e-3)) for i in range(rare)}
    parts = rng.dirichlet(np.full(sources - rare, 5.0))
    left = samples - sum(chosen.values())
    chosen |= {f"common{i}": int(left * part) for i, part in enumerate(parts)}
    chosen["common0"] += samples - sum(chosen.values())
    entries = []
    for name, choose in chosen.items():
        scarce = name.startswith("rare")
        available = int(choose / (rng.uniform(1, 4) if scarce else rng.uniform(0.5, 1.5)))
        write_source(folder / "mds" / name, available, RARE_SHARD if scarce else COMMON_SHARD)
        entries.append(
            {
                "name": name,
                "role": "rare" if scarce else "common",
                "share": choose / samples,
                "natural_share": choose / samples,
                "rate": 1.0,
                "epochs": choose / available,
                "max_epochs": 100.0,
                "tokens": choose * LENGTH,
                "tokens_available": available * LENGTH,
                "choose": choose,
                "mds": f"mds/{name}",
            }
        )
    return {
        "name": "plan-speed",
        "size": {"name": "tiny", "d_model": 16, "layers": 2, "heads": 4, "d_ffn": 64},
        "block_params": 8336,
        "total_params": 16560,
        "vocab_size": 257,
        "sequence_length": LENGTH,
        "samples": samples,
        "tokens": samples * LENGTH,
        "sources": entries,
    }


def write_source(folder: Path, samples: int, shard_samples: int) -> None:
    """An index, and files of the size that it says."""
    folder.mkdir(parents=True)
    shards = []
    for number, first in enumerate(range(0, samples, shard_samples)):
        count = min(shard_samples, samples - first)
        size = 4 * LENGTH * count
        with (folder / f"shard.{number:05}.mds").open("wb") as file:
            file.truncate(size)
        shards.append(
            {
                "column_encodings": [f"ndarray:int32:{LENGTH}"],
                "column_names": ["tokens"],
                "column_sizes": [4 * LENGTH],
                "compression": None,
                "format": "mds",
                "hashes": [],
                "raw_data": {"basename": f"shard.{number:05}.mds", "bytes": size, "hashes": {}},
                "samples": count,
                "size_limit": None,
                "version": 2,
                "zip_data": None,
            }
        )
    (folder / "index.json").write_text(json.dumps({"shards": shards, "version": 2}))


def run(arguments: list[str]) -> tuple[float, float, int, str]:
    """Seconds, seconds of CPU, peak bytes of memory, and what the command printed."""
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen([sys.executable, "-m", "mixplan", *arguments], stdout=out)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
        if status:
            raise SystemExit(f"{' '.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}")
        out.seek(0)
        return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, out.read()


if __name__ == "__main__":
    main()
