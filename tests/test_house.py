"""The rules of the house that no compiler checks: who may import whom, what must have words, what a kernel comes with.

Every failure names the file and the line.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PURE = (
    *(f"engine.{name}" for name in ("errors", "timebase", "config", "spec", "tree", "program", "timeline", "plan")),
    *(
        f"engine.{name}"
        for name in (
            "framequeue",
            "jobdocument",
            "jobs",
            "losses",
            "morph",
            "rounding",
            "rtmp",
            "fmp4",
            "bitstream",
            "boxes",
            "feed",
            "packet",
            "sync",
            "template",
            "clip",
            "color",
            "effects",
            "player",
            "smart",
            "strictjson",
            "structs",
            "urls",
        )
    ),
    "api.moviemasher.fields",
    "api.moviemasher.mash",
    "api.moviemasher.outputs",
)
IMPURE = {"av", "logging", "numpy", "os", "quart", "random", "socket", "subprocess", "threading", "time", "trio"}
SEEN_BY_DOORS = {
    "engine",
    *(
        f"engine.{name}"
        for name in (
            *("spec", "timebase", "tree", "program", "timeline", "jobs", "errors", "config", "worker", "media"),
            *("clip", "color", "template", "fetch", "jobdocument", "morph", "newest"),
            *("strictjson", "structs", "threads", "urls"),
        )
    ),
}
RENDERING = {  # in their processes, or speaking as all commands do
    **{name: {"engine.command"} for name in ("__main__.py", "commands.py", "worker.py", "logs.py", "mashes.py")},
    "serve.py": {"engine.command", "engine.link"},  # listens as RTMP does
    "http.py": {"engine.link"},  # counts connections as RTMP does
    "child.py": {"engine.command", "engine.child"},
    "remote.py": {"engine.dial"},  # asks a server as jobs do
}
EMPTY_JOBS = ("util", "helper", "manager", "handler", "service", "processor", "impl")  # empty with any word before them
EMPTY_NAMES = {*EMPTY_JOBS, "common", "base", "data", "info"}
PUBLIC_NAMES = {"api/moviemasher/data.py"}  # the dialect calls it so
KERNELS = sorted((ROOT / "engine_ext").glob("*.pyx"))


def modules(*folders: str) -> list[Path]:
    """The Python files of some top-level folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    """What a file says."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def place(path: Path, line: int = 1) -> str:
    """`engine/plan.py:12`."""
    return f"{path.relative_to(ROOT)}:{line}"


def dotted(path: Path) -> str:
    """`engine/rtmp/__init__.py` → `engine.rtmp`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def contracts() -> dict[str, dict[str, list[str]]]:
    """The contracts of pyproject.toml by their type; of two of one type, the last."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return {each["type"]: each for each in tomllib.load(file)["tool"]["importlinter"]["contracts"]}


# --- imports ---------------------------------------------------------------------------------------------------------


def test_import_contracts_are_kept():
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    arguments = [sys.executable, "-c", command, "--no-cache", "--no-logo"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_pure_module_is_under_the_contract():
    pure = {name for name in PURE if _path(name) is not None}
    contract = contracts()["forbidden"]
    assert set(contract["source_modules"]) == pure
    assert set(contract["forbidden_modules"]) == IMPURE


def _path(name: str) -> Path | None:
    path = ROOT / name.replace(".", "/")
    found = [each for each in (path.with_suffix(".py"), path / "__init__.py") if each.exists()]
    return found[0] if found else None


def test_every_module_has_its_layer():
    layers = set(re.findall(r"[\w.]+", " ".join(contracts()["layers"]["layers"])))
    names = {".".join(dotted(path).split(".")[:2]): path for path in modules("engine", "api")}
    assert not [place(path) for name, path in names.items() if "." in name and name not in layers]


def test_all_that_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[<>=]", each, maxsplit=1)[0] for each in project["dependencies"]}
    makers, wrong = packages_distributions(), []
    for path in modules("engine", "api"):
        for node in ast.walk(tree(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in {each.partition(".")[0] for each in names} - {"api", "engine", "engine_ext"}:
                known = {each.lower().replace("_", "-") for each in makers.get(name, ())}
                if name not in sys.stdlib_module_names and not known & declared:
                    wrong.append(f"{place(path, node.lineno)}: {name}")
    assert not wrong, "\n".join(wrong)


def test_doors_see_only_the_fronts_of_the_engine():
    wrong = []
    for path in modules("api"):
        allowed = SEEN_BY_DOORS | RENDERING.get(path.name, set())
        for node in ast.walk(tree(path)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
                if node.module == "engine":  # a module of it, or a public name: those begin with a capital
                    names = [f"engine.{alias.name}" if alias.name.islower() else "engine" for alias in node.names]
            bad = [name for name in names if name.split(".")[0] == "engine" and name not in allowed]
            wrong += [f"{place(path, node.lineno)}: imports {name}" for name in bad]
    assert not wrong, "\n".join(wrong)


def named(call: ast.Call) -> set[str]:
    """The classes that a call names, also within others: ``tuple[Webhook, ...]``."""
    nodes = [each for argument in [*call.args, *call.keywords] for each in ast.walk(argument)]
    return {each.id for each in nodes if isinstance(each, ast.Name) and each.id.lstrip("_")[:1].isupper()}


@pytest.mark.parametrize("path", modules("engine", "api"), ids=place)
def test_what_is_decoded_is_ready_for_threads(path):
    """Two threads that decode a struct of msgspec for the first time end the process. Of a module's own structs."""
    calls = [(ast.unparse(node.func), named(node)) for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    classes = [node for node in tree(path).body if isinstance(node, ast.ClassDef)]
    structs = {each.name for each in classes if any("Struct" in ast.unparse(base) for base in each.bases)}
    decoders = ("msgspec.convert", "msgspec.json.decode", "partial", "_as")
    decoded = {name for called, names in calls if called in decoders for name in names}
    assert decoded & structs <= {name for called, names in calls if called == "ready" for name in names}


# --- words -----------------------------------------------------------------------------------------------------------


def undocumented(path: Path) -> Iterator[str]:
    """The public module, classes and functions of a file that say nothing about themselves."""
    body = tree(path)
    if not ast.get_docstring(body):
        yield f"{place(path)}: module"
    yield from _undocumented(path, body)


def _undocumented(path: Path, parent: ast.Module | ast.ClassDef) -> Iterator[str]:
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield f"{place(path, node.lineno)}: {node.name}"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented(path, node)


def test_every_public_name_has_a_docstring():
    found = [line for path in modules("engine", "api") for line in undocumented(path)]
    assert not found, "\n".join(found)


def test_nothing_has_a_name_that_says_nothing():
    found = []
    for path in modules("engine", "engine_ext", "api", "bench", "tests"):
        if path.stem.rstrip("s") in EMPTY_NAMES and str(path.relative_to(ROOT)) not in PUBLIC_NAMES:
            found.append(f"{place(path)}: module {path.stem}")
        for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            match = re.match(r"\s*class (\w+)", line)
            name = match[1].strip("_").lower().rstrip("s") if match else ""
            if name in EMPTY_NAMES or name.endswith(EMPTY_JOBS):
                found.append(f"{place(path, n)}: class {match[1]}")
    assert not found, "\n".join(found)


# --- habits ----------------------------------------------------------------------------------------------------------


def test_no_error_is_caught_and_forgotten_without_saying_why():
    found = []
    for path in modules("engine", "engine_ext", "api", "bench"):
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler):
                silent = all(isinstance(each, ast.Pass) for each in node.body)
                explained = re.search(r"pass  # \w", lines[node.body[-1].lineno - 1])
                found += [place(path, node.lineno)] if node.type is None or (silent and not explained) else []
    assert not found, "\n".join(found)


def test_nobody_hops_to_a_thread_but_by_engine_threads():
    """Trio's own hop raises a bare RuntimeError while the system has no more threads; `in_thread` waits for one."""
    found = []
    for path in modules("engine", "api"):
        for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if "to_thread" in line and path != ROOT / "engine/threads.py":
                found.append(f"{place(path, n)}: {line.strip()}")
    assert not found, "\n".join(found)


def test_nothing_is_raised_where_groups_are_taken_apart():
    """Up to Python 3.11.3, which Debian 12 has, an error that is raised within `except*` comes out in a group."""
    found = []
    for path in modules("engine", "api"):
        for taken in (node for node in ast.walk(tree(path)) if isinstance(node, ast.TryStar)):
            raised = [n for each in taken.handlers for n in ast.walk(each) if isinstance(n, ast.Raise) and n.exc]
            found += [place(path, each.lineno) for each in raised]
    assert not found, "\n".join(found)


# --- kernels ---------------------------------------------------------------------------------------------------------


def test_what_is_packed_is_whole():
    packing = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packed: set[Path] = set()
    for package in packing["packages"]:
        folder = ROOT / package.replace(".", "/")
        for pattern in ("*.py", *packing["package-data"].get(package, ())):
            packed |= set(folder.glob(pattern))
    found = {path for name in ("engine", "engine_ext", "api") for path in (ROOT / name).rglob("*") if path.is_file()}
    made = {path for path in found if path.suffix in (".c", ".so", ".pyc")}
    assert [place(path) for path in sorted(found - made - packed)] == []


def test_there_are_kernels():
    assert KERNELS


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda path: path.stem)
def test_kernel_comes_with_types_oracle_test_and_bench(kernel):
    name = kernel.stem
    oracles = {node.name for node in tree(ROOT / "tests/reference.py").body if isinstance(node, ast.FunctionDef)}
    test = ROOT / f"tests/engine_ext/test_{name}.py"
    missing = {
        f"{name}.pyi": kernel.with_suffix(".pyi").exists(),
        f"an oracle {name}() in tests/reference.py": name in oracles,
        f"tests/engine_ext/test_{name}.py that uses reference.{name}": test.exists()
        and f"reference.{name}" in test.read_text(encoding="utf-8"),
        "a bench that imports it or names it in its docstring": any(_names(path, name) for path in modules("bench")),
    }
    assert all(missing.values()), f"{place(kernel)}: no " + ", no ".join(k for k, there in missing.items() if not there)


def _names(path: Path, kernel: str) -> bool:
    imported = re.search(rf"engine_ext(\.| import .*\b){kernel}\b", path.read_text(encoding="utf-8"))
    return bool(imported or re.search(rf"\b{kernel}\b", ast.get_docstring(tree(path)) or ""))
