"""The whole way, on text that every machine has: sources → ladder → curves → plan → mixture → report.

    python examples/quickstart/run.py FOLDER

Every step is a mixplan command, printed before it runs; run again, it continues where it was interrupted.
"""

from __future__ import annotations

import csv
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
            text = (HERE / name).read_text(encoding="utf-8")
            (folder / name).write_text(without_missing(text, folder / "raw"), encoding="utf-8")


def without_missing(text: str, raw: Path) -> str:
    """A document without the sources that this machine lacks: some packages of Python leave its tests out."""
    for source in ("library", "tests", "encodings", "topics"):
        if not (raw / source).is_dir():
            print(f"source {source} is not on this machine and is left out")
            text = text.replace(f"raw/{source}, ", "")
            text = "".join(line for line in text.splitlines(True) if f"{{name: {source}," not in line)
    return text


def run(folder: Path, step: list[str]) -> int:
    """Run one command in the folder."""
    print(f"\n$ mixplan {' '.join(step)}", flush=True)
    started = time.monotonic()
    code = subprocess.run([sys.executable, "-m", "mixplan", *step], cwd=folder, check=False).returncode
    print(f"[{time.monotonic() - started:.0f} s]", flush=True)
    return code


def tell(folder: Path, seconds: float) -> None:
    """What was found, in plain words, from the files themselves."""
    import yaml

    calibration = json.loads((folder / "calibration.json").read_text())
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    print("\nWhat was found")
    for rung, cells in final_cells(folder).items():
        learned = [cell for cell, skill in cells.items() if skill >= calibration["learned_skill"]]
        print(f"  {rung}: learned {len(learned)} of {len(cells)} cells{hardest(learned)}")
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


def final_cells(folder: Path) -> dict[str, dict[tuple[str, float, float], float]]:
    """Per rung, smallest first: mean skill over seeds of each (family, complexity, frequency) at the end."""
    with (folder / "measurements" / "learning.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    last = max(float(row["step"]) for row in rows)
    rows = sorted(
        (row for row in rows if float(row["step"]) == last), key=lambda row: float(row["block_params"])
    )
    found: dict[str, dict[tuple[str, float, float], list[float]]] = {}
    for row in rows:
        cell = (row["family"], float(row["complexity"]), float(row["frequency_requested"]))
        found.setdefault(row["rung"], {}).setdefault(cell, []).append(float(row["skill"]))
    return {
        rung: {cell: sum(skills) / len(skills) for cell, skills in cells.items()}
        for rung, cells in found.items()
    }


def hardest(learned: list[tuple[str, float, float]]) -> str:
    """The hardest table among the learned cells, and the rarest frequency it was learned at."""
    tables = [(side, frequency) for family, side, frequency in learned if family == "table_lookup"]
    if not tables:
        return ""
    side = max(side for side, _ in tables)
    rarest = min(frequency for other, frequency in tables if other == side)
    return f"; hardest a table of {side**2:.0f} facts, from one instance in {1 / rarest:.0f} tokens on"


if __name__ == "__main__":
    sys.exit(main())
