"""The house rules, as tests over the sources themselves."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mixplan"
MODULES = sorted(PACKAGE.rglob("*.py"))
STAGES = {"calibrate", "laws", "recommend", "recipes", "report", "testbed"}
SHARED = {"documents", "errors", "compat", "units"}
"""What a stage may import from mixplan, besides itself."""
TRAINS = {"calibrate", "testbed"}
"""Stages whose modules may import torch and transformers at the top."""
EMITTED = tuple(
    PACKAGE / "recipes" / name for name in ("loader.py", "olmo_core_loader.py", "huggingface_loader.py")
)
"""Copied beside the mixtures that `emit` writes: programs of their own. mixplan reads with the first."""
LIGHT = {"__future__", "sys", "pathlib", "typing", "typer"}
COMMAND_LINE = ("cli", "cli_recipes", "cli_testbed")
OWN = tuple(f"mixplan.{module}." for module in COMMAND_LINE)
"""Modules of commands may import one another: all are held to the same rule."""
HEAVY = ("torch", "transformers", "optuna", "streaming", "datasets", "numpy", "scipy", "pydantic", "yaml")
MAX_LINES = 450


def imports(node: ast.AST) -> Iterator[str]:
    """Full names of what a piece of code imports, function bodies included."""
    for part in ast.walk(node):
        if isinstance(part, ast.Import):
            yield from (alias.name for alias in part.names)
        elif isinstance(part, ast.ImportFrom):
            assert part.level == 0, "imports are absolute"
            assert part.module is not None
            yield from (f"{part.module}.{alias.name}" for alias in part.names)


def top_level_imports(tree: ast.Module) -> Iterator[str]:
    """What is imported when the module is: not inside functions, not for type checkers only."""
    for node in tree.body:
        guarded = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        if not guarded and not isinstance(node, ast.FunctionDef):
            yield from imports(node)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def stage_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_stages_meet_only_in_documents(path: Path) -> None:
    stage = stage_of(path)
    used = {name.split(".")[1] for name in imports(tree_of(path)) if re.match(r"mixplan\.\w", name)}
    if stage in STAGES:
        assert used <= SHARED | {stage}
    elif stage in SHARED | {"console"}:
        assert used <= SHARED, "what all stages share imports no stage"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_console_prints(path: Path) -> None:
    if path == PACKAGE / "console.py":
        return
    tree = tree_of(path)
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert not [name for name in imports(tree) if name.split(".")[0] == "rich"]
    written = re.findall(
        r"sys\.(?:stdout|stderr)\.write|typer\.(?:echo|secho)", path.read_text(encoding="utf-8")
    )
    assert not written


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_training_stages_import_torch_at_the_top(path: Path) -> None:
    if path in EMITTED:
        return
    roots = {name.split(".")[0] for name in top_level_imports(tree_of(path))}
    if stage_of(path) not in TRAINS:
        assert not roots & {"torch", "transformers"}
    assert not roots & {"streaming", "datasets", "torchvision", "tokenizers"}, (
        "these take seconds: import where used"
    )
    if stage_of(path) in TRAINS:
        assert not roots & {"optuna", "scipy"}


@pytest.mark.parametrize("path", [p for p in MODULES if stage_of(p) == "laws"], ids=name_of)
def test_laws_are_numpy_and_scipy_only(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports(tree_of(path))}
    assert roots <= set(sys.stdlib_module_names) | {"numpy", "scipy", "mixplan"}


@pytest.mark.parametrize("program", EMITTED, ids=name_of)
def test_emitted_programs_stand_alone(program: Path) -> None:
    assert not [name for name in imports(tree_of(program)) if name.split(".")[0] == "mixplan"]
    module = f"mixplan.recipes.{program.stem}"
    for path in MODULES:
        assert not [name for name in top_level_imports(tree_of(path)) if name.startswith(f"{module}.")]


@pytest.mark.parametrize("module", COMMAND_LINE)
def test_the_command_line_is_light_and_its_functions_short(module: str) -> None:
    tree = tree_of(PACKAGE / f"{module}.py")
    imported = [name for name in top_level_imports(tree) if not name.startswith(OWN)]
    assert {name.split(".")[0] for name in imported} <= LIGHT
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            signature = max((argument.end_lineno or 0 for argument in node.args.args), default=node.lineno)
            assert (node.end_lineno or 0) - signature <= 40, f"{node.name}: parse, call, show"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_are_small_and_say_what_they_are_for(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES
    assert ast.get_docstring(ast.parse(text)), "a module begins with what it is for"


def tracked_text() -> list[Path]:
    """Every file that git tracks or would, and that is text."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:  # an unpacked archive
        return [
            path
            for folder in ("mixplan", "tests", "docs")
            for path in (ROOT / folder).rglob("*")
            if path.is_file()
        ]
    paths = [ROOT / name for name in listed.stdout.splitlines()]
    return [path for path in paths if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


def test_no_path_of_one_machine_and_no_host_of_one_network() -> None:
    # Written in pieces, so that this file does not find itself.
    folders = "|".join(("wo" + "rk", "ro" + "ot", "ho" + r"me/\w", "Us" + r"ers/\w", "m" + "nt"))
    machine = re.compile(rf"(?<![\w./-])/(?:{folders})/")
    hosts = re.compile(r"https?://[^\s/]*(?:artifact|nexus|pypi|registry|proxy|mirror)[^\s/]*", re.I)
    found = []
    for path in tracked_text():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if machine.search(line) or hosts.search(line):
                found.append(f"{name_of(path)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_every_command_has_its_page() -> None:
    import typer.main

    from mixplan.cli import app

    commands = set(typer.main.get_group(app).commands)
    pages = {
        path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "commands").glob("*.md")
    }
    assert commands == set(pages)
    shape = ["Syntax", "Example", "What it reads and writes", "Common failures"]
    for name, text in pages.items():
        assert text.startswith(f"# mixplan {name}\n\n**Purpose.** "), name
        headings = re.findall(r"^## (.+)$", text, re.M)
        assert [heading for heading in headings if heading in shape] == shape, name


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['mixplan', '--help']\n"
        "from mixplan.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    loaded = ast.literal_eval(done.stderr.strip().splitlines()[-1])
    assert loaded == []
