"""`fsagn-onnx completion`: Print the script that completes commands and options in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["command"]


@click.command("completion", short_help="Print the script that completes commands and options in a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes commands and options in SHELL.

    \b
    bash:  eval "$(fsagn-onnx completion bash)"       in ~/.bashrc
    zsh:   eval "$(fsagn-onnx completion zsh)"        in ~/.zshrc
    fish:  fsagn-onnx completion fish | source        in ~/.config/fish/config.fish
    """
    from .main import cli

    script = get_completion_class(shell)
    if script is None:
        raise click.UsageError(f"no completion for {shell}")
    click.echo(script(cli, {}, "fsagn-onnx", "_FSAGN_ONNX_COMPLETE").source())
