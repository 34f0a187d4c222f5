"""The command line's only front door: the Typer app, its error boundary, and the registration of commands."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hiposeg_cli.commands import (
    benchmark,
    console,
    demo,
    doctor,
    evaluate,
    export,
    formats,
    hierarchy,
    inspect,
    predict,
    prepare,
    runs,
    train,
)
from hiposeg_cli.errors import HiposegError

_SWITCHES = ("-q", "--quiet", "-v", "--verbose", "--debug")


class ErrorBoundary(TyperGroup):
    """Turns a user's mistake into one line and the right exit code; anything else is a bug of ours (exit 70)."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The switches of `hiposeg` itself count wherever they stand, also behind a command."""
        end = args.index("--") if "--" in args else len(args)
        ours = [text for text in args[:end] if text in _SWITCHES]
        others = [text for text in args[:end] if text not in _SWITCHES]
        return super().parse_args(ctx, [*ours, *others, *args[end:]])

    def invoke(self, ctx: Any) -> Any:
        arguments = [*ctx._protected_args, *ctx.args]
        try:
            return super().invoke(ctx)
        except HiposegError as error:
            code, message = error.exit_code, str(error)
            original: Exception = error
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except BrokenPipeError:
            raise
        except Exception as error:
            if isinstance(error, typer.Exit | typer.Abort) or (
                hasattr(error, "format_message") and "--json" not in arguments
            ):
                raise
            if hasattr(error, "format_message"):
                code, message, original = getattr(error, "exit_code", 2), error.format_message(), error
            else:
                code, original = 70, error
                message = f"{type(error).__name__}: {error} - a bug in hiposeg; `hiposeg --debug COMMAND` shows where"
        if ctx.params.get("debug"):
            raise original
        command = arguments[0] if arguments else ""
        console.fail(command, message, code, as_json="--json" in arguments)
        raise typer.Exit(code)


app = typer.Typer(
    cls=ErrorBoundary,
    name="hiposeg",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Hierarchical semantic segmentation: prepare part and class datasets, train, evaluate and predict on every level.",
)


def _version(value: bool) -> None:
    if value:
        from hiposeg_cli import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="More detail on stderr.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    console.set_quiet(quiet)
    level = logging.DEBUG if debug else logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(name)s: %(message)s")


app.command("demo")(demo.demo)
app.command("prepare")(prepare.prepare)
app.command("formats")(formats.formats)
app.command("inspect")(inspect.inspect)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.add_typer(runs.app, name="runs")
app.command("export")(export.export)
app.command("benchmark")(benchmark.benchmark)
app.add_typer(hierarchy.app, name="hierarchy")
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # class names a terminal's encoding lacks are no error
    try:
        app()
    except SystemExit as ended:
        from hiposeg_cli.learn.launch import leave_if_launched

        leave_if_launched(os.environ, ended)
        raise
