# SPDX-License-Identifier: ZPL-2.1
"""What a command cannot do, in one line for a person."""

from __future__ import annotations

from typing import IO, Any

import click

from zasync.foundation.errors import Trouble, classify
from zasync.interfaces import ZasyncError


class CommandError(ZasyncError):
    """A command cannot do what it was asked; the message is the line for the person."""


class OneLine(click.ClickException):
    """Ends the process with one line on standard error and the exit code 2."""

    exit_code = 2

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"zasync: {self.format_message()}", file=file, err=True)


def as_one_line(error: Exception) -> OneLine | None:
    """What to tell of `error`; None if it is not of a kind that one line explains."""
    if isinstance(error, ZasyncError):
        return OneLine(first_line(error))
    if classify(error, from_storage=True) in (Trouble.INFRASTRUCTURE, Trouble.READ_ONLY):
        return OneLine(f"the database is away: {type(error).__name__}: {first_line(error)}")
    return None


def first_line(error: BaseException) -> str:
    """What an error says, without its further lines; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
