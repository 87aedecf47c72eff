"""The command line: the root command, found quickly; each noun's commands are loaded when they are called."""

from __future__ import annotations

import click

from raftcron import __version__
from raftcron.cli.root import Root

__all__ = ["main"]

main = Root(
    name="raftcron",
    help="Highly available cron without a database.",
    commands_at={
        "dev": ("raftcron.cli.dev:dev", "Run a whole local cluster, and restart what dies."),
        "server": ("raftcron.cli.server:server", "Run one node."),
        "job": ("raftcron.cli.job:job", "List, apply, edit, pause, run and delete jobs."),
        "run": ("raftcron.cli.run:run", "Look at runs, cancel them, run them again."),
        "schedule": ("raftcron.cli.schedule:schedule", "Say what a schedule means; asks no node."),
        "cluster": ("raftcron.cli.cluster:cluster", "Look at the cluster, and change who belongs to it."),
        "token": ("raftcron.cli.token:token", "Make, list and revoke the tokens that clients show."),
        "audit": ("raftcron.cli.audit:audit", "Read and check the record of every write."),
        "backup": (
            "raftcron.cli.backup:backup",
            "Save jobs, calendars, groups, secrets and alert route in a file.",
        ),
        "restore": ("raftcron.cli.backup:restore", "Put a backup in the place of what is there."),
        "import": ("raftcron.cli.imports:imports", "Print the jobs of crontabs, Kubernetes or Dkron."),
        "doctor": ("raftcron.cli.doctor:doctor", "Say what is wrong with the cluster, and what to do."),
        "completion": ("raftcron.cli.completion:completion", "Print what completes commands in your shell."),
        "version": ("raftcron.cli.version:version", "Print the version."),
    },
)

click.version_option(__version__, message="%(prog)s %(version)s")(main)
