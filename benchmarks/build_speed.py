"""How fast `mixplan build` is against the plain route: the same text, tokenizer and number of processes.

    OMP_NUM_THREADS=1 python benchmarks/build_speed.py [--megabytes 64] [--repetitions 3] [--processes 2]

Plain: `datasets` loads JSON lines, one map tokenises (batched, so many processes), one packs into samples,
and `MDSWriter` writes them in one process. Text: the Python files of the installed packages, a document each;
the tokenizer is a byte-level BPE of 8,192 tokens trained on some of them. Each route runs in a process of its
own, from its start to its end, in turns; shown are all tokens written ÷ time, with the processor time of all
its processes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LENGTH = 2048
SETTINGS = {
    "8k BPE": {"tokenizer": {"kind": "huggingface", "path": "tokenizer"}, "vocab_size": 8192},
    "bytes": {"tokenizer": {"kind": "bytes"}},
}
ROUTES = ("plain", "mixplan")


def main() -> None:
    """Prepare the text, run the routes in turns, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--route", choices=ROUTES)  # in a process of its own
    parser.add_argument("--with", dest="tokenizer", choices=list(SETTINGS))
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    if asked.route is not None:
        {"plain": plain, "mixplan": with_mixplan}[asked.route](asked.folder, asked.tokenizer, asked.processes)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), asked.megabytes, asked.repetitions, asked.processes)


def compare(folder: Path, megabytes: int, repetitions: int, processes: int) -> None:
    """Print a row a tokenizer and route: the best of the repetitions, which disturb each other least."""
    size, documents = prepare(folder, megabytes << 20)
    print(
        f"{size / 1e6:.0f} MB of text in {documents:,} documents, {processes} processes, samples of {LENGTH}"
    )
    print("\n| tokenizer | route | million tokens | seconds, each | processor seconds | tokens/s | MB/s |")
    print("|---|---|---|---|---|---|---|")
    for tokenizer in SETTINGS:
        taken: dict[str, list[tuple[float, float, int]]] = {route: [] for route in ROUTES}
        for _ in range(repetitions):
            for route in ROUTES:
                taken[route].append(timed(folder, route, tokenizer, processes))
        for route in ROUTES:
            tokens = taken[route][0][2]
            best = min(wall for wall, _, _ in taken[route])
            walls = ", ".join(f"{wall:.1f}" for wall, _, _ in taken[route])
            used = ", ".join(f"{cpu:.1f}" for _, cpu, _ in taken[route])
            print(
                f"| {tokenizer} | {route} | {tokens / 1e6:.1f} | {walls} | {used} | {tokens / best:,.0f} | "
                f"{size / best / 1e6:.2f} |"
            )
        for what, at in (("time", 0), ("processor time", 1)):
            rates = {route: max(one[2] / one[at] for one in taken[route]) for route in ROUTES}
            print(f"| {tokenizer} | ratio by {what} | | | | **{rates['mixplan'] / rates['plain']:.2f}** | |")
        sys.stdout.flush()


def timed(folder: Path, route: str, tokenizer: str, processes: int) -> tuple[float, float, int]:
    """Seconds, processor seconds of it and its processes, tokens written."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        for name in ("text", "tokenizer"):
            (Path(out) / name).symlink_to(folder / name)
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        subprocess.run(
            [
                *(sys.executable, __file__, "--route", route, "--with", tokenizer),
                *("--folder", out, "--processes", str(processes)),
            ],
            check=True,
            env={**os.environ, "HF_DATASETS_CACHE": f"{out}/cache", "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wall, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        shards = json.loads((Path(out) / "mds" / "index.json").read_text())["shards"]
        return wall, cpu, LENGTH * sum(shard["samples"] for shard in shards)


def with_mixplan(folder: Path, tokenizer: str, processes: int) -> None:
    """`mixplan build`."""
    import yaml

    from mixplan.cli import app

    data = {"format": "jsonl", "paths": ["text/*.jsonl"]}
    plan = {
        "sources": [{"name": "code", "role": "common", "data": data, "mds": "mds"}],
        "tasks": [],
        "sizes": ["cpu_8k"],
        "sequence_length": LENGTH,
        "budget": {"tokens": 1e6},
        **SETTINGS[tokenizer],
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    app(["build", str(folder / "plan.yaml"), "--workers", str(processes)])


def plain(folder: Path, tokenizer: str, processes: int) -> None:
    """`datasets` maps, then `MDSWriter`."""
    import numpy as np
    from datasets import load_dataset

    from mixplan.compat import ensure_torchvision_imports

    ensure_torchvision_imports()
    from streaming import MDSWriter

    texts = load_dataset("json", data_files=[str(path) for path in sorted((folder / "text").iterdir())])
    if tokenizer == "bytes":
        tokenise: Any = _bytes
    else:
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)

        def tokenise(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
            found = loaded(rows["text"], add_special_tokens=False, return_attention_mask=False, verbose=False)
            return {"ids": [[*ids, loaded.eos_token_id] for ids in found["input_ids"]]}

    tokens = texts["train"].map(tokenise, batched=True, num_proc=processes, remove_columns=["text"])
    packed = tokens.map(_packed, batched=True, num_proc=processes, remove_columns=["ids"])
    columns = {"tokens": f"ndarray:int32:{LENGTH}"}
    with MDSWriter(columns=columns, out=str(folder / "mds"), hashes=["xxh3_64"]) as writer:
        for row in packed.with_format("numpy"):
            writer.write({"tokens": row["tokens"].astype(np.int32)})


def _bytes(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
    return {"ids": [[*text.encode(), 256] for text in rows["text"]]}


def _packed(rows: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
    """The usual packing of a batch of 1,000 documents; what is left of it is dropped."""
    from itertools import chain

    joined = list(chain.from_iterable(rows["ids"]))
    whole = len(joined) // LENGTH * LENGTH
    return {"tokens": [joined[at : at + LENGTH] for at in range(0, whole, LENGTH)]}


def prepare(folder: Path, size: int) -> tuple[int, int]:
    """Write text/ (JSON lines in files of about 8 MB) and tokenizer/; bytes of text and documents."""
    written = documents = 0
    (folder / "text").mkdir()
    sample: list[str] = []
    for text in texts_installed():
        if written >= size:
            break
        with (folder / "text" / f"{written >> 23:03}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"text": text}) + "\n")
        if written < 16 << 20:
            sample.append(text)
        written += len(text.encode())
        documents += 1
    train_tokenizer(sample, folder / "tokenizer")
    return written, documents


def texts_installed() -> Iterator[str]:
    """The Python files that came with the interpreter and its packages, in a fixed order."""
    for place in ("stdlib", "purelib"):
        for path in sorted(Path(sysconfig.get_path(place)).rglob("*.py")):
            try:
                text = path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue
            if text:
                yield text


def train_tokenizer(texts: list[str], folder: Path) -> None:
    """A byte-level BPE of 8,192 tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from mixplan.compat import ensure_torchvision_imports

    ensure_torchvision_imports()
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=8192,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(folder)


if __name__ == "__main__":
    main()
