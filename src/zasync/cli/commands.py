# SPDX-License-Identifier: ZPL-2.1
"""The group of commands, and the edge at which their errors become one line."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import Any

import click

from zasync.cli.demo import demo
from zasync.cli.errors import as_one_line
from zasync.cli.health import health
from zasync.cli.parked import parked
from zasync.cli.put import put
from zasync.cli.status import status
from zasync.cli.version import version
from zasync.cli.worker import worker

INTERRUPTED = 130  # what shells make of an end by SIGINT


class Commands(click.Group):
    """A group whose commands end with one line when they cannot do what was asked."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("zasync: interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            line = as_one_line(error)
            if line is None:
                raise
            if ctx.params.get("debug"):
                traceback.print_exc()
            raise line from error


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Log everything, and show where errors come from.")
@click.pass_context
def zasync(ctx: click.Context, debug: bool) -> None:
    """A durable, transactional job queue for applications that keep their data in ZODB."""
    ctx.obj = {"debug": debug}
    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    else:  # Python would print warnings of a command that has no log
        logging.getLogger().addHandler(logging.NullHandler())
    _let_import_from(os.getcwd())


def _let_import_from(directory: str) -> None:
    """Find the application's modules where the command is called, as `python -m` does."""
    if directory not in sys.path and "" not in sys.path:
        sys.path.insert(0, directory)


for command in (demo, health, parked, put, status, version, worker):
    zasync.add_command(command)
