"""`hiposeg` run within the tests' own process, and what it answers."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from hiposeg_cli.app import app


def run(*arguments: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def data_of(result: Result) -> Any:
    """The data of a --json answer to a command that ran, after checking its envelope."""
    assert result.exit_code in (0, 1), result.output
    envelope = json.loads(result.stdout)
    assert set(envelope) == {"schema", "command", "status", "data", "warnings"}
    assert envelope["status"] == ("problems" if result.exit_code else "ok")
    return envelope["data"]


def refused(result: Result, *words: str, code: int = 2) -> None:
    """One line that names what is wrong, the right exit code, no traceback."""
    assert result.exit_code == code, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("hiposeg: ")]
    assert len(lines) == 1, result.output
    for word in words:
        assert word in lines[0], lines[0]
    assert "Traceback" not in result.output
