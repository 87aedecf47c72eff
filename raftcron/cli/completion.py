"""`raftcron completion SHELL`: what a shell sources to complete commands, options and their values."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes raftcron in SHELL.

    bash: `eval "$(raftcron completion bash)"` in ~/.bashrc; zsh: the same in ~/.zshrc; fish: `raftcron completion fish
    > ~/.config/fish/completions/raftcron.fish`.
    """
    from click.shell_completion import get_completion_class

    from raftcron.cli import main

    kind = get_completion_class(shell)
    assert kind is not None, "click has all three"
    click.echo(kind(main, {}, "raftcron", "_RAFTCRON_COMPLETE").source())
