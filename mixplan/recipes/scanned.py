"""A plan with its counts filled in."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mixplan.documents.atomic import write_text
from mixplan.documents.loading import check, read_data
from mixplan.documents.plan import Plan
from mixplan.documents.syntax import Parsed, dump_yaml
from mixplan.errors import InputError
from mixplan.recipes.folders import is_url
from mixplan.recipes.scanning import Scan

_HEADER = (
    "# {name} with tokens_available as `mixplan scan` counted it (whole samples of {length:,} tokens);\n"
    "# what the plan itself gave stands. Count again when the data change.\n"
)


def check_output(out: Path) -> Path:
    """The path, if a plan can be written there.

    Raises:
        InputError: the name is no YAML's or JSON's.
    """
    if out.suffix not in (".yaml", ".yml", ".json"):
        raise InputError(f"{out}: a plan is YAML or JSON; give a name that ends in .yaml or .json")
    return out


def write_scanned(plan_path: Path, found: Scan, out: Path) -> None:
    """Write the plan anew with `tokens_available` where it gave none, and paths that lead where they did.

    Raises:
        InputError: the file cannot be written.
    """
    # Through JSON: what a YAML alias names in two places becomes two, or its paths would be changed twice.
    data = json.loads(json.dumps(read_data(plan_path).data))
    for source, counted in zip(data["sources"], found.sources, strict=True):
        if counted.tokens_available is None:
            source["tokens_available"] = counted.usable_tokens
    _lead_from(data, plan_path.resolve().parent, out.resolve().parent)
    check(Parsed(data), out, Plan)
    if out.suffix == ".json":
        write_text(out, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    else:
        header = _HEADER.format(name=plan_path.name, length=found.sequence_length)
        write_text(out, header + dump_yaml(data))


def _lead_from(data: dict[str, Any], old: Path, new: Path) -> None:
    """Change every relative path of a plan, so that from the new folder it leads where it did."""
    way = os.path.relpath(old, new)

    def follow(path: str) -> str:
        if way == "." or is_url(path) or Path(path).expanduser().is_absolute():
            return path
        return os.path.normpath(os.path.join(way, path))

    for source in data["sources"]:
        if source.get("mds"):
            source["mds"] = follow(source["mds"])
        if source.get("text"):
            source["text"] = [follow(path) for path in source["text"]]
        if source.get("data"):
            named = source["data"].get("format") == "dataset"  # a name is no path
            source["data"]["paths"] = [
                path if named and not (old / Path(path).expanduser()).exists() else follow(path)
                for path in source["data"]["paths"]
            ]
    if (data.get("tokenizer") or {}).get("path"):
        data["tokenizer"]["path"] = follow(data["tokenizer"]["path"])
