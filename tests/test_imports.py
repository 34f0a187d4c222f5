"""The layering: who may import whom, and what must never be imported early."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "hiposeg_cli"
BASE = {"errors", "raw_file", "remarks", "strict_json", "strict_yaml", "registry"}
LABELS = BASE | {"hierarchy", "hierarchy_yaml", "image_file", "labelmap", "lookup", "raw_names", "taxonomy"}
DATA = LABELS | {"store", "metrics", "graph", "formats"}
ALLOWED = {
    "errors": set(),
    "raw_file": {"errors"},
    "remarks": set(),
    "strict_json": {"errors", "raw_file", "remarks"},
    "strict_yaml": {"errors"},
    "registry": {"errors"},
    "config": BASE,
    "hierarchy": BASE,
    "taxonomy": BASE | {"hierarchy", "taxonomy"},
    "hierarchy_yaml": BASE | {"hierarchy", "taxonomy"},
    "builders": DATA | {"builders"},
    "image_file": {"errors", "raw_file", "remarks"},
    "labelmap": BASE | {"hierarchy", "image_file"},
    "raw_names": BASE | {"hierarchy"},
    "lookup": BASE | {"hierarchy", "labelmap"},
    "graph": LABELS,
    "store": LABELS,
    "metrics": LABELS | {"metrics"},
    "formats": LABELS | {"formats"},
    "exports": LABELS | {"locks", "store", "pool", "exports"},
    "shard": {"errors"},
    "writer": LABELS | {"locks", "shard", "store"},
    "pool": {"errors"},
    "locks": {"errors"},
    "joined": LABELS | {"store"},
    "convert": DATA | {"pool", "shard", "writer"},
    "inspection": LABELS | {"store", "graph", "formats", "convert", "pool", "inspection"},
    "evaluation": DATA | {"convert", "pool", "evaluation"},
    "report": DATA | {"report", "inspection", "runs", "evaluation"},
    "runs": DATA | {"config", "inspection"},
    "plan": DATA | {"config"},
    "demo": LABELS | {"demo"},
    "learn": DATA | {"learn"},
    "nets": DATA | {"learn", "nets"},
    "methods": DATA | {"learn", "methods"},
    "infer": DATA | {"exports", "learn", "locks", "nets", "infer", "report", "shard"},
    "run_config": DATA | {"config", "learn", "nets", "methods", "runs"},
    "run": DATA | {"joined", "config", "learn", "nets", "methods", "infer", "plan", "run_config"},
}
NUMPY_RING = BASE | {
    "config",
    "hierarchy",
    "hierarchy_yaml",
    "image_file",
    "labelmap",
    "lookup",
    "raw_names",
    "taxonomy",
    "builders",
    "graph",
    "store",
    "joined",
    "shard",
    "writer",
    "pool",
    "locks",
    "metrics",
    "formats",
    "exports",
    "convert",
    "inspection",
    "evaluation",
    "report",
    "runs",
    "plan",
    "demo",
}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports_of(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Full names of what a module imports, at any depth or at import time only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    part = part_of(path)
    if part not in ALLOWED:
        assert part in {"app", "commands", "__main__", "__init__"}, f"{part} has no place in the layering"
        return
    used = {name.split(".")[1] for name in imports_of(path) if name.startswith("hiposeg_cli.")}
    assert used <= ALLOWED[part], f"{part} may not import {used - ALLOWED[part]}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_numpy_ring_never_imports_torch_or_typer(path: Path) -> None:
    if part_of(path) in NUMPY_RING or "savers" in path.parts:
        roots = {name.split(".")[0] for name in imports_of(path)}
        assert not roots & {"torch", "timm", "typer", "click"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_commands_import_only_light_things_at_the_top(path: Path) -> None:
    if part_of(path) in {"app", "commands"}:
        roots = {name.split(".")[0] for name in imports_of(path, top_level_only=True)}
        assert not roots & {"torch", "numpy", "rich", "PIL", "networkx", "scipy"}


def require_to_run(code: str, *arguments: str) -> None:
    """Run Python code in a process of its own, which has imported nothing yet."""
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("arguments", ["--help", "prepare --help", "train -h", "hierarchy list", "hierarchy show wbc-3-2"])
def test_help_and_hierarchy_never_import_torch(arguments: str) -> None:
    code = (
        "import sys; sys.argv = ['hiposeg', *sys.argv[1:]]\n"
        "from hiposeg_cli.app import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules, 'torch was imported'"
    )
    require_to_run(code, *arguments.split())


def test_networks_load_without_the_packages_of_exports() -> None:
    """onnx, onnxruntime and onnxscript are an extra: a run predicts where they are not installed."""
    code = (
        "import sys; import hiposeg_cli.infer.model, hiposeg_cli.infer.predictor, hiposeg_cli.infer.portable\n"
        "found = {'onnx', 'onnxruntime', 'onnxscript'} & set(sys.modules)\n"
        "assert not found, found"
    )
    require_to_run(code)


def test_savers_never_import_torch() -> None:
    """Encoding runs in worker processes, where torch would cost seconds and hundreds of megabytes each."""
    code = (
        "import sys; from hiposeg_cli.registry import SAVERS\n"
        "for name in SAVERS.names():\n    SAVERS.load(name)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    require_to_run(code)


def test_registered_plugins_exist() -> None:
    from hiposeg_cli.registry import BUILDERS, EXPORTS, FORMATS, METHODS, SAVERS

    for registry in (BUILDERS, EXPORTS, FORMATS, METHODS, SAVERS):
        for name in registry.names():
            assert registry.load(name).__doc__
