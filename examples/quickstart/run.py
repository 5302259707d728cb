"""The whole way, on text that every machine has: sources → ladder → curves → plan → mixture → report.

    python examples/quickstart/run.py FOLDER

Every step is a mixplan command, printed before it runs; run again, it continues where it was interrupted.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run all steps in the folder given; returns the exit code."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "quickstart")
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    prepare(folder)
    steps = [
        ["validate", "calibration.yaml", "plan.yaml"],
        ["plan", "calibration.yaml"],
        ["build", "plan.yaml"],
        ["calibrate", "calibration.yaml", "-o", "runs"],
        ["collect", "runs", "-o", "measurements"],
        ["fit", "measurements", "-o", "calibration.json", "--force"],
        [
            "recommend",
            "plan.yaml",
            "--calibration",
            "calibration.json",
            "-o",
            "recipe.yaml",
            "--explain",
            "--force",
        ],
        ["emit", "recipe.yaml", "--format", "streaming", "-o", "mixture", "--force"],
        ["verify", "mixture", "-o", "verify.json"],
        ["report", ".", "-o", "report.html", "--force"],
    ]
    for step in steps:
        code = run(folder, step)
        if code:
            print(f"\nmixplan {step[0]} ended with exit code {code}; mend what it says and run this again")
            return code
    tell(folder, time.monotonic() - started)
    return 0


def prepare(folder: Path) -> None:
    """Gather the text and put the two documents beside it."""
    sys.path.insert(0, str(HERE))
    from sources import collect

    if not (folder / "raw").is_dir():
        partial = folder / "raw.partial"
        shutil.rmtree(partial, ignore_errors=True)
        sizes = collect(partial)
        partial.rename(folder / "raw")
        print("text: " + ", ".join(f"{name} {size / 1e6:.2f} MB" for name, size in sizes.items()))
    for name in ("calibration.yaml", "plan.yaml"):
        if not (folder / name).exists():
            shutil.copy(HERE / name, folder / name)


def run(folder: Path, step: list[str]) -> int:
    """Run one command in the folder."""
    print(f"\n$ mixplan {' '.join(step)}", flush=True)
    started = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "mixplan", *step], cwd=folder, check=False).returncode
    print(f"[{time.monotonic() - started:.0f} s]", flush=True)
    return code


def tell(folder: Path, seconds: float) -> None:
    """What was found, in plain words, from the files themselves."""
    import csv

    import yaml

    with (folder / "measurements" / "learning.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    last = max(float(row["step"]) for row in rows)
    rows = [row for row in rows if float(row["step"]) == last and row["family"] == "comparison"]
    rungs = sorted({(float(row["block_params"]), row["rung"]) for row in rows})
    calibration = json.loads((folder / "calibration.json").read_text())
    threshold = calibration["learned_skill"]
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())

    print("\nWhat was found")
    for _, rung in rungs:
        own = [row for row in rows if row["rung"] == rung]
        learned = sum(float(row["skill"]) >= threshold for row in own)
        rare = [row for row in own if float(row["frequency"]) < 1e-3]
        mean = sum(float(row["skill"]) for row in rare) / len(rare)
        print(
            f"  {rung}: learned {learned} of {len(own)} comparison cells; "
            f"mean skill {mean:.2f} on those rarer than one instance in a thousand tokens"
        )
    if calibration["backtest"]:
        print(f"  {calibration['backtest']['verdict']}")
    print(f"  recommended: {recipe['size']['name']}, {recipe['tokens'] / 1e6:.2f} M tokens")
    for source in recipe["sources"]:
        print(
            f"    {source['name']}: share {source['share']:.1%} (natural {source['natural_share']:.1%}, "
            f"rate {source['rate']:.2f}), {source['epochs']:.2f} epochs"
        )
    for task in recipe["tasks"]:
        before, after = task["natural"]["p_learned"], task["recommended"]["p_learned"]
        print(f"    {task['name']}: P(learned) {before:.2f} at the natural rate, {after:.2f} as recommended")
    print("\nWhere the files are")
    for name, what in (
        ("measurements/", "what the ladder measured"),
        ("calibration.json", "the fitted laws, with the backtest"),
        ("recipe.yaml", "size, tokens and shares"),
        ("mixture/", "streams.yaml and loader.py for the trainer"),
        ("report.html", "all of it on one page: open it in a browser"),
    ):
        print(f"  {folder / name}: {what}")
    print(f"\n{seconds:.0f} s in all")


if __name__ == "__main__":
    sys.exit(main())
