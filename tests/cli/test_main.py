"""The root of the command line: help, exit statuses, and every error as one line on standard error."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from fsagn_onnx import __version__, errors
from fsagn_onnx.cli import main as root
from fsagn_onnx.cli.main import COMMANDS, cli, run

SCRIPT = str(Path(sys.executable).with_name("fsagn-onnx"))


def script(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the installed script."""
    return subprocess.run(
        [SCRIPT, *arguments], capture_output=True, text=True, timeout=1800, env={**os.environ, **environment}
    )


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    """Make `fsagn-onnx inspect` raise what the test asks for."""

    def install(error: BaseException) -> None:
        @click.command("inspect")
        def command() -> None:
            raise error

        monkeypatch.setattr(root._Commands, "get_command", lambda self, ctx, name: command)

    return install


def test_version() -> None:
    done = script("--version")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, f"fsagn-onnx {__version__}", "")


def test_help_names_every_command() -> None:
    done = script("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_its_line_in_the_table(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help
    assert run([name, "--help"]) == 0
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts}: no help"


@pytest.mark.parametrize("arguments", [["no-such-command"], ["--no-such-option"], ["completion", "tcsh"]])
def test_wrong_usage_is_2(arguments: list[str]) -> None:
    done = script(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Error:" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_command_shows_help_and_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize("name", errors.__all__)
def test_own_errors_are_one_line_and_1(name: str, failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(getattr(errors, name)("no value 'conv5' in a\nb.onnx; nearest: 'conv5_1'"))
    assert run(["inspect"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: no value 'conv5' in a b.onnx; nearest: 'conv5_1'\n"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device; free some space"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/out"),
            "/out: permission denied; check its perm",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/out"),
            "/out: read-only file system; choose a folder",
        ),
        (MemoryError("12 GiB"), "not enough memory: 12 GiB; use a smaller batch"),
    ],
)
def test_system_errors_are_one_line_and_1(
    error: Exception, expected: str, failing, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(error)
    assert run(["inspect"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {expected}")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(("package", "extra"), [("torch", "train"), ("safetensors", "train"), ("skimage", "demo")])
def test_a_missing_extra_is_named(package: str, extra: str, failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(ModuleNotFoundError(f"No module named '{package}'", name=package))
    assert run(["inspect"]) == 1
    error = capsys.readouterr().err
    assert f"pip install 'fsagn-onnx[{extra}]'" in error
    assert "'fsagn-onnx inspect' needs the" in error
    assert error.count("\n") == 1


def test_a_broken_import_is_not_hidden(failing) -> None:
    failing(ModuleNotFoundError("No module named 'fsagn_onnx.missing'", name="fsagn_onnx.missing"))
    with pytest.raises(ModuleNotFoundError, match="missing"):
        run(["inspect"])


def test_interrupt_is_130(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(KeyboardInterrupt())
    assert run(["inspect"]) == 130
    assert capsys.readouterr().err.strip() == "error: interrupted"


def test_the_exit_status_of_a_command_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command("explain")
    @click.pass_context
    def command(context: click.Context) -> None:
        context.exit(3)

    monkeypatch.setattr(root._Commands, "get_command", lambda self, ctx, name: command)
    assert run(["explain"]) == 3


def test_a_closed_pipe_is_quiet() -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {SCRIPT} completion zsh | head -c 1"],
        capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str) -> None:
    done = script("completion", shell)
    assert done.returncode == 0
    assert "_FSAGN_ONNX_COMPLETE" in done.stdout


def test_completion_completes_commands_without_importing_them() -> None:
    done = script(_FSAGN_ONNX_COMPLETE="bash_complete", COMP_WORDS="fsagn-onnx e", COMP_CWORD="1")
    assert done.stdout.split() == ["plain,explain", "plain,export", "plain,evaluate"]


def test_completion_completes_arguments() -> None:
    done = script(_FSAGN_ONNX_COMPLETE="bash_complete", COMP_WORDS="fsagn-onnx completion ", COMP_CWORD="2")
    assert done.stdout.split() == ["plain,bash", "plain,zsh", "plain,fish"]


def test_a_message_is_one_printable_line_of_bounded_length(failing, capsys: pytest.CaptureFixture[str]) -> None:
    failing(errors.ModelError("no value '" + "\x1b[31mx\n" * 50_000 + "' in net.onnx"))
    assert run(["inspect"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert len(line) < 1100
    assert line.startswith("error: no value '")
    assert line.endswith("' in net.onnx")
