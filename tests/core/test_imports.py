"""Who imports whom: downwards, no family another, nothing in a circle, and inside functions only what is slow."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(path for package in ("socket_theory", "socket_gpu") for path in (ROOT / package).rglob("*.py"))
NAMES = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}

FAMILY = "a family"
# What the modules of a part may import besides those of their own. A folder that is not named here is a family: its
# modules import no other family, in neither package. `__init__` is the package itself, which exports names.
FAMILIES = {"socket_theory.core", "socket_theory.bounds", f"socket_theory.{FAMILY}"}
EVALUATE = FAMILIES | {f"socket_theory.{part}" for part in ("__init__", "claims", "integrations", "evaluate")}
BENCH = {"socket_gpu.__init__", "socket_gpu.bench", f"socket_gpu.{FAMILY}"}
BELOW: dict[str, set[str]] = {
    "socket_theory.core": set(),
    "socket_theory.bounds": {"socket_theory.core"},
    f"socket_theory.{FAMILY}": {"socket_theory.core", "socket_theory.bounds", "socket_theory.testing"},
    "socket_theory.__init__": FAMILIES,
    "socket_theory.testing": {"socket_theory.core"},
    "socket_theory.claims": FAMILIES,
    "socket_theory.integrations": FAMILIES,
    "socket_theory.evaluate": EVALUATE,
    "socket_theory.report": EVALUATE,
    "socket_theory.cli": EVALUATE | BENCH | {"socket_theory.report"},
    "socket_theory.__main__": {"socket_theory.cli"},
    "socket_gpu.core": {"socket_theory.core"},
    "socket_gpu.bench": {"socket_gpu.core", "socket_theory.core", "socket_theory.testing", "socket_theory.evaluate"},
    f"socket_gpu.{FAMILY}": FAMILIES
    | {"socket_gpu.core", "socket_gpu.bench", "socket_theory.testing", "socket_theory.evaluate"},
    "socket_gpu.registry": FAMILIES | {"socket_gpu.core", f"socket_gpu.{FAMILY}"},
    "socket_gpu.__init__": {"socket_gpu.core"},
}


class Import(NamedTuple):
    """A module that a file imports; `from a import b` gives a.b, whatever b is."""

    name: str
    in_function: bool
    for_types: bool


def imports(path: Path) -> list[Import]:
    """Every import of a file, also inside functions and for types only."""
    found: list[Import] = []

    def visit(node: ast.AST, in_function: bool, for_types: bool) -> None:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.relative_to(ROOT)}:{node.lineno} uses a relative import"
            names = [f"{node.module}.{name}" for name in names]
        found.extend(Import(name, in_function, for_types) for name in names)
        in_function |= isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for_types |= isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.iter_child_nodes(node):
            visit(child, in_function, for_types)

    visit(ast.parse(path.read_text()), False, False)
    return found


def own_module(name: str) -> str | None:
    """The module of our packages that `a.b` is or is a name of; None for anybody else's."""
    return next((known for known in (name, name.rpartition(".")[0]) if known in NAMES), None)


def own_imports(module: str) -> dict[str, Import]:
    """The modules of our packages that one of them loads, imports inside functions included."""
    loaded = ((own_module(found.name), found) for found in imports(NAMES[module]) if not found.for_types)
    return {name: found for name, found in loaded if name is not None}


def part_and_family(module: str) -> tuple[str, str | None]:
    """The key of a module in BELOW, and its family if it belongs to one."""
    package, _, rest = module.partition(".")
    part = rest.split(".")[0] or "__init__"
    if f"{package}.{part}" in BELOW:
        return f"{package}.{part}", None
    return f"{package}.{FAMILY}", part


def goes_down(module: str, imported: str) -> bool:
    """Whether the two rules let a module import another one."""
    (part, family), (other, other_family) = part_and_family(module), part_and_family(imported)
    if None not in (family, other_family) and family != other_family:
        return False
    return other == part or other in BELOW[part]


def test_the_parts_that_are_named_exist_and_the_others_are_families() -> None:
    found = {part_and_family(module) for module in NAMES}
    assert {part for part, _ in found} == set(BELOW)
    assert {family for _, family in found} >= {None, "socket_lsh", "santa", "race"}


@pytest.mark.parametrize("module", NAMES)
def test_imports_run_downwards_and_no_family_imports_another(module: str) -> None:
    assert not [name for name in own_imports(module) if not goes_down(module, name)]


def test_of_a_family_only_its_contract_uses_what_is_for_tests() -> None:
    families = [module for module in NAMES if part_and_family(module)[0] == f"socket_theory.{FAMILY}"]
    users = [module for module in families if "socket_theory.testing" in own_imports(module)]
    assert {module.rpartition(".")[2] for module in users} == {"contract"}


def test_the_rules_tell_families_apart() -> None:
    assert goes_down("socket_gpu.santa.bench", "socket_theory.santa.estimator")
    assert not goes_down("socket_gpu.santa.bench", "socket_theory.socket_lsh.estimator")
    assert not goes_down("socket_theory.santa.query", "socket_theory.socket_lsh.bit")
    assert not goes_down("socket_theory.core.cache", "socket_theory")
    assert not goes_down("socket_gpu.bench.dense", "socket_gpu.socket_lsh.gate")


def test_no_import_comes_back_to_where_it_began() -> None:
    """Imports inside functions count: put there, one hides a circle and does not open it."""
    graph = {module: set(own_imports(module)) - {module} for module in NAMES}
    assert sum(map(len, graph.values())) > 500
    TopologicalSorter(graph).prepare()


def test_only_what_is_slow_to_load_is_imported_inside_a_function() -> None:
    """The command line starts without the claims, the plots, joblib and the benchmarks; torch waits for a model."""
    late = {(module, name) for module in NAMES for name, found in own_imports(module).items() if found.in_function}
    assert late == {
        ("socket_gpu.race.bench_peers", "socket_theory.evaluate.race_passes"),
        ("socket_theory.cli.bench", "socket_gpu.race.bench"),
        ("socket_theory.cli.bench", "socket_gpu.santa.bench"),
        ("socket_theory.cli.bench", "socket_gpu.socket_lsh.bench"),
        ("socket_theory.cli.claim_id", "socket_theory.claims.registry"),
        ("socket_theory.cli.claim_id", "socket_theory.core.claim"),
        ("socket_theory.cli.evaluate", "socket_theory.report.attention_page"),
        ("socket_theory.cli.learning", "socket_theory.evaluate.learning.experiment"),
        ("socket_theory.cli.learning", "socket_theory.evaluate.learning.figure"),
        ("socket_theory.cli.learning", "socket_theory.evaluate.learning.model"),
        ("socket_theory.cli.learning", "socket_theory.evaluate.learning.train"),
        ("socket_theory.cli.ranking", "socket_theory.evaluate.ranking"),
        ("socket_theory.cli.tightness", "socket_theory.evaluate.tightness.entry"),
        ("socket_theory.cli.tightness", "socket_theory.evaluate.tightness.settings"),
        ("socket_theory.cli.verify", "socket_theory.claims.registry"),
        ("socket_theory.cli.verify", "socket_theory.report.verify_page"),
        ("socket_theory.evaluate.prefill", "socket_theory.integrations.hugging_face"),
    }


def test_hugging_face_is_touched_by_one_file() -> None:
    users = {path.name for path in FILES for found in imports(path) if found.name.split(".")[0] == "transformers"}
    assert users <= {"hugging_face.py"}
