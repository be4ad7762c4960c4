"""The rules of the frame, read off the imports; each is shown to fail on a few lines made up here.

What a rule finds are sentences, one for each place that breaks it.
"""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TENSOR_PLACES = ("engine/compute/", "engine/load.py", "engine/demo/")
"""Where torch may be imported."""
TENSOR_LIBRARIES = {"torch", "triton", "safetensors", "torchao", "flashinfer"}
ASYNC_LIBRARIES = {"asyncio", "aiohttp", "uvloop"}
REACHES_LOAD = {"server/serving.py", "server/cli/serve.py", "server/cli/env.py"}
"""Files that may reach past the door; of the first two one loads."""

Sources = dict[str, ast.Module]
"""Path within the project, and what was parsed there."""


def parsed(texts: dict[str, str]) -> Sources:
    return {path: ast.parse(text) for path, text in texts.items()}


@pytest.fixture(scope="module")
def project() -> Sources:
    paths = sorted(path for top in ("engine", "server") for path in (ROOT / top).rglob("*.py"))
    return parsed({str(path.relative_to(ROOT)): path.read_text() for path in paths})


def imports(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """List (module, name): name is None for `import module`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def libraries(tree: ast.AST) -> set[str]:
    return {module.split(".")[0] for module, _ in imports(tree)}


# -- the rules


def torch_outside_its_places(sources: Sources) -> Iterator[str]:
    for path, tree in sources.items():
        if not path.startswith(TENSOR_PLACES):
            for library in sorted(libraries(tree) & TENSOR_LIBRARIES):
                yield f"{path} imports {library}"


def tensor_files_imported_from_outside(sources: Sources) -> Iterator[str]:
    """Find who reaches torch through a file of ours."""
    for path, tree in sources.items():
        for module, name in imports(tree):
            target = f"{module}.{name}"
            if path.startswith(TENSOR_PLACES):
                continue
            if f"{target}.".startswith(("engine.compute.", "engine.demo.")):
                yield f"{path} imports {target}"
            if f"{target}.".startswith("engine.load.") and path not in REACHES_LOAD:
                yield f"{path} imports {target}"


def files_of_two_colours(sources: Sources) -> Iterator[str]:
    for path, tree in sources.items():
        used = libraries(tree)
        if used & TENSOR_LIBRARIES and used & ASYNC_LIBRARIES:
            yield f"{path} both waits and computes"


def engine_imports_of_server(sources: Sources) -> Iterator[str]:
    for path, tree in sources.items():
        if path.startswith("engine/") and "server" in libraries(tree):
            yield f"{path} imports server"


def ways_past_the_door(sources: Sources) -> Iterator[str]:
    """Find imports of the engine's modules, and of names that its door does not offer."""
    door = sources.get("engine/__init__.py", ast.Module([], []))
    offered = next(
        (ast.literal_eval(node.value) for node in door.body if is_assignment_of(node, "__all__")),
        [],
    )
    for path, tree in sources.items():
        if not path.startswith("server/"):
            continue
        for module, name in imports(tree):
            if module == "engine" and name is not None and name not in offered:
                yield f"{path} imports {name}, which the door does not offer"
            is_load = module == "engine.load" and path in REACHES_LOAD
            if module.startswith("engine.") and not is_load:
                yield f"{path} imports {module}"


def is_assignment_of(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id == name for target in node.targets
    )


def files_that_reach_load(sources: Sources) -> list[str]:
    return [path for path, tree in sources.items() if ("engine.load", "load") in imports(tree)]


def imports_inside_functions(sources: Sources) -> Iterator[str]:
    """Find late imports; a file of `server/cli` may have one function with them: its command."""
    for path, tree in sources.items():
        functions = [
            n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        nested = {
            node for function in functions for node in ast.walk(function) if node is not function
        }
        late = [
            f"{path}:{function.lineno} imports inside {function.name}"
            for function in functions
            if function not in nested
            and any(isinstance(inner, ast.Import | ast.ImportFrom) for inner in ast.walk(function))
        ]
        if not path.startswith("server/cli/") or len(late) > 1:
            yield from late


def imports_in_disguise(sources: Sources) -> Iterator[str]:
    for path, tree in sources.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.level:
                yield f"{path}:{node.lineno} imports relatively"
            if isinstance(node, ast.Name) and node.id in {"TYPE_CHECKING", "__import__"}:
                yield f"{path}:{node.lineno} uses {node.id}"
            if isinstance(node, ast.Attribute) and node.attr in {"TYPE_CHECKING", "import_module"}:
                yield f"{path}:{node.lineno} uses {node.attr}"
            if isinstance(node, ast.alias) and node.name in {"TYPE_CHECKING", "import_module"}:
                yield f"{path}:{node.lineno} imports {node.name}"


def cycles(sources: Sources) -> Iterator[str]:
    """Find modules of ours that import themselves by way of others."""
    module_of = {path: path.removesuffix(".py").replace("/", ".") for path in sources}
    module_of = {path: name.removesuffix(".__init__") for path, name in module_of.items()}
    known = set(module_of.values())
    needs: dict[str, set[str]] = {}
    for path, tree in sources.items():
        found = {f"{m}.{n}" if f"{m}.{n}" in known else m for m, n in imports(tree)}
        needs[module_of[path]] = found & known
    done: set[str] = set()

    def visit(module: str, trail: list[str]) -> Iterator[str]:
        if module in trail:
            yield " → ".join([*trail[trail.index(module) :], module])
        elif module not in done:
            for needed in sorted(needs[module]):
                yield from visit(needed, [*trail, module])
            done.add(module)

    for module in sorted(needs):
        yield from visit(module, [])


CONTAINERS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
CONTAINER_CALLS = {"list", "dict", "set", "bytearray"}
STATEFUL_CALLS = {
    *("deque", "defaultdict", "OrderedDict", "Counter", "count", "cycle", "iter", "local"),
    *("Lock", "RLock", "Event", "Queue", "SimpleQueue", "Semaphore", "Condition", "ContextVar"),
    *("WeakKeyDictionary", "WeakValueDictionary", "WeakSet"),
}
CACHES = {"cache", "lru_cache", "cached_property"}
CHANGES = {
    *("append", "extend", "insert", "remove", "pop", "popitem", "clear", "add", "discard"),
    *("update", "setdefault", "sort", "reverse"),
}


def mutable_state_of_modules(sources: Sources) -> Iterator[str]:
    """Find what a module would remember: stateful objects, and tables that are not constants."""
    for path, tree in sources.items():
        tables = set()
        for name, value in module_names(tree):
            made_by = called(value)
            if made_by in STATEFUL_CALLS:
                yield f"{path} keeps a {made_by} in {name}"
            if isinstance(value, CONTAINERS) or made_by in CONTAINER_CALLS:
                tables.add(name)
                if name != "__all__" and name != name.upper():
                    yield f"{path} keeps {name}, which is not named as a constant"
        for node in ast.walk(tree):
            if isinstance(node, ast.Global):
                yield f"{path}:{node.lineno} changes the global {', '.join(node.names)}"
            if (name := changed_name(node)) in tables:
                yield f"{path}:{node.lineno} changes {name}"
            if isinstance(node, ast.FunctionDef) and {called(d) for d in decorators(node)} & CACHES:
                yield f"{path}:{node.lineno} caches {node.name}"


def module_names(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value


def called(node: ast.expr) -> str | None:
    """Name what is called: `Lock` of `threading.Lock()`."""
    if not isinstance(node, ast.Call):
        return None
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", None)


def decorators(node: ast.FunctionDef) -> list[ast.expr]:
    """List decorators, bare ones as calls."""
    return [d if isinstance(d, ast.Call) else ast.Call(d, [], []) for d in node.decorator_list]


def changed_name(node: ast.AST) -> str | None:
    """Name the table that this changes in place."""
    target: ast.AST | None = None
    if isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
        target = node.value
    elif isinstance(node, ast.AugAssign):
        target = node.target
    elif isinstance(node, ast.Call) and called(node) in CHANGES:
        target = getattr(node.func, "value", None)
    return getattr(target, "id", None)


Rule = Callable[[Sources], Iterator[str]]
RULES: dict[Rule, list[Sources]] = {
    torch_outside_its_places: [
        parsed({"engine/scheduler.py": "import torch"}),
        parsed({"engine/scheduler.py": "from torch.nn import Linear"}),
        parsed({"server/app.py": "import safetensors.torch as files"}),
        parsed({"engine/loader.py": "def f():\n    import torch"}),
    ],
    tensor_files_imported_from_outside: [
        parsed({"engine/engine.py": "from engine.compute.runner import ModelRunner"}),
        parsed({"engine/engine.py": "from engine.compute import runner"}),
        parsed({"engine/engine.py": "import engine.compute.runner"}),
        parsed({"engine/engine.py": "from engine import compute"}),
        parsed({"engine/engine.py": "from engine.load import load"}),
        parsed({"server/app.py": "from engine import load"}),
    ],
    files_of_two_colours: [
        parsed({"engine/load.py": "import asyncio\nimport torch"}),
        parsed({"engine/compute/runner.py": "import torch.nn\nfrom aiohttp import web"}),
    ],
    engine_imports_of_server: [
        parsed({"engine/engine.py": "from server.errors import Problem"}),
        parsed({"engine/engine.py": "import server"}),
    ],
    ways_past_the_door: [
        parsed({"server/app.py": "from engine.scheduler import Scheduler"}),
        parsed({"server/app.py": "import engine.scheduler"}),
        parsed({"server/app.py": "from engine.load import load"}),
        parsed(
            {
                "server/app.py": "from engine import scheduler",
                "engine/__init__.py": "__all__ = ['Engine']",
            }
        ),
        parsed({"server/serving.py": "from engine.engine import Engine"}),
    ],
    imports_inside_functions: [
        parsed({"engine/engine.py": "def f():\n    import json"}),
        parsed({"server/app.py": "async def f():\n    if x:\n        from json import loads"}),
        parsed({"server/app.py": "class A:\n    def f(self):\n        import json"}),
        parsed({"server/cli/serve.py": "def f():\n    import json\ndef g():\n    import json"}),
    ],
    imports_in_disguise: [
        parsed({"engine/engine.py": "from . import scheduler"}),
        parsed({"engine/engine.py": "from .scheduler import Scheduler"}),
        parsed({"engine/engine.py": "from typing import TYPE_CHECKING"}),
        parsed({"engine/engine.py": "import typing\nif typing.TYPE_CHECKING:\n    import json"}),
        parsed({"engine/engine.py": "import importlib\nimportlib.import_module('torch')"}),
        parsed({"engine/engine.py": "__import__('torch')"}),
    ],
    cycles: [
        parsed({"engine/a.py": "import engine.b", "engine/b.py": "import engine.a"}),
        parsed(
            {
                "engine/a.py": "from engine.b import B",
                "engine/b.py": "from engine import c",
                "engine/c.py": "from engine.a import A",
            }
        ),
        parsed(
            {"engine/__init__.py": "from engine.a import A", "engine/a.py": "from engine import A"}
        ),
        parsed({"engine/a.py": "import engine.a"}),
    ],
    mutable_state_of_modules: [
        parsed({"engine/a.py": "cache = {}"}),
        parsed({"engine/a.py": "seen: set[int] = set()"}),
        parsed({"engine/a.py": "TABLE = [1]\ndef f():\n    TABLE.append(2)"}),
        parsed({"engine/a.py": "TABLE = {1: 2}\ndef f():\n    TABLE[3] = 4"}),
        parsed({"engine/a.py": "TABLE = {1: 2}\ndef f():\n    del TABLE[1]"}),
        parsed({"engine/a.py": "TABLE = {1}\ndef f():\n    TABLE |= {2}"}),
        parsed({"engine/a.py": "N = 0\ndef f():\n    global N\n    N = 1"}),
        parsed({"engine/a.py": "import threading\nLOCK = threading.Lock()"}),
        parsed({"engine/a.py": "from itertools import count\nIDS = count()"}),
        parsed({"engine/a.py": "from functools import cache\n@cache\ndef f(): pass"}),
        parsed({"engine/a.py": "import functools\n@functools.lru_cache(8)\ndef f(): pass"}),
    ],
}
ALLOWED = {
    torch_outside_its_places: parsed(
        {
            "engine/compute/runner.py": "import torch",
            "engine/load.py": "import torch",
            "engine/torches.py": "x = 1",
        }
    ),
    tensor_files_imported_from_outside: parsed(
        {
            "engine/load.py": "from engine.compute.runner import ModelRunner",
            "server/serving.py": "from engine.load import load",
            "server/generate.py": "from engine import Engine",
        }
    ),
    files_of_two_colours: parsed(
        {"engine/engine.py": "import asyncio", "engine/compute/runner.py": "import torch"}
    ),
    engine_imports_of_server: parsed({"server/app.py": "import server.errors"}),
    ways_past_the_door: parsed(
        {
            "engine/__init__.py": "from engine.engine import Engine\n__all__ = ['Engine']",
            "server/app.py": "import engine\nfrom engine import Engine",
            "server/serving.py": "from engine.load import load",
        }
    ),
    imports_inside_functions: parsed(
        {"engine/engine.py": "import json", "server/cli/serve.py": "def serve():\n    import json"}
    ),
    imports_in_disguise: parsed({"engine/engine.py": "from engine.scheduler import Scheduler"}),
    cycles: parsed(
        {
            "engine/__init__.py": "from engine.a import A\nfrom engine.b import B",
            "engine/a.py": "from engine.b import B",
            "engine/b.py": "import json",
        }
    ),
    mutable_state_of_modules: parsed(
        {
            "engine/a.py": "__all__ = ['f']\nTABLE = {1: 2}\n_N = (1,)\nPairs = list[int]\n"
            "def f():\n    table = {}\n    table[1] = TABLE[1]\n    table.update(TABLE)"
        }
    ),
}

every_rule = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)


@every_rule
def test_the_project_keeps_the_rule(rule, project):
    assert list(rule(project)) == []


@every_rule
def test_the_rule_finds_what_breaks_it(rule):
    for sources in RULES[rule]:
        assert list(rule(sources)), f"not found: {[ast.unparse(t) for t in sources.values()]}"


@every_rule
def test_the_rule_lets_the_rest_pass(rule):
    assert list(rule(ALLOWED[rule])) == []


def test_the_project_is_read(project):
    assert {"engine/scheduler.py", "engine/__init__.py", "server/__main__.py"} <= project.keys()
    assert any(path.startswith("engine/compute/") for path in project)


def test_one_file_at_most_reaches_past_the_door(project):
    assert len(files_that_reach_load(project)) <= 1


@pytest.mark.parametrize("module", ["engine", "server.app", "server.__main__"])
def test_importing_it_loads_no_torch(module):
    code = f"import {module}, sys; print(*sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_a_subprocess_that_does_load_it_would_be_seen():
    code = "import sys; sys.modules['torch'] = sys; print(*{'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "torch"
