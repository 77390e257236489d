"""The claims on a real Dask cluster: the script of the guide, and the results of one process, number for number."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import joblib
import pytest

from socket_theory.claims.registry import CLAIMS, verify
from socket_theory.core.rng import Key

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "dask.md"
CHOSEN = [claim for claim in CLAIMS if claim.id.split(".")[0] in ("C2", "S1", "S3", "S7")]


def numbers(results: Sequence[Any]) -> list[tuple[Any, ...]]:
    return sorted((result.id, result.measurement, result.control, result.error) for result in results)


@pytest.mark.slow
def test_workers_find_the_numbers_of_one_process(require_extra: Callable[..., Any], tmp_path: Path) -> None:
    distributed = require_extra("test", "distributed")
    serial = list(verify(CHOSEN, key=Key.from_seed(3)))
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        distributed.LocalCluster(**options, local_directory=str(tmp_path)) as cluster,
        distributed.Client(cluster) as client,
        distributed.get_task_stream(client=client) as stream,
        joblib.parallel_config(backend="dask"),
    ):
        spread = list(verify(CHOSEN, key=Key.from_seed(3), n_jobs=-1))
    assert len(serial) == len(CHOSEN) > 3
    assert numbers(spread) == numbers(serial)
    assert sum("run_by_id" in task["key"] for task in stream.data) > 1


@pytest.mark.slow
def test_the_script_of_the_guide_runs_the_command_on_a_cluster(
    require_extra: Callable[..., Any], tmp_path: Path
) -> None:
    require_extra("test", "distributed")
    script = re.search(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert script is not None
    assert len([line for line in script[1].splitlines() if line]) == 6
    command = ["verify", "--claim", "C2", "--claim", "S3", "--json", str(tmp_path / "spread.json")]
    assert script[1].count('["verify", "--effort", "full"]') == 1
    (tmp_path / "sweep.py").write_text(script[1].replace('["verify", "--effort", "full"]', repr(command)))
    serial = ["-m", "socket_theory", *command[:-1], str(tmp_path / "serial.json"), "--jobs", "1"]
    found = []
    for arguments, name in (([str(tmp_path / "sweep.py")], "spread.json"), (serial, "serial.json")):
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "claims hold and every control is rejected" in done.stdout
        found.append([row | {"seconds": None} for row in json.loads((tmp_path / name).read_text())])
    assert found[0] == found[1]
    assert len(found[0]) > 2
