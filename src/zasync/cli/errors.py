# SPDX-License-Identifier: ZPL-2.1
"""What a command cannot do: in one line for a person, and in an exit code for a program."""

from __future__ import annotations

import enum
from typing import IO, Any

import click

from zasync.foundation.errors import Trouble, classify
from zasync.interfaces import ZasyncError
from zasync.storage import StorageLocked, StorageUnreachable


class ExitCode(enum.IntEnum):
    """What the end of a process says to whoever started it: whether to start it again."""

    CLEAN = 0
    CUT_SHORT = 1  # told twice to stop, or could not stop cleanly
    WRONG = 2  # a person has to change something first: options, configuration, the uuid file
    STORAGE_AWAY = 3  # later may help
    IDENTITY_TAKEN = 4  # helps as soon as the other process has ended
    BROKEN = 5  # it worked and then could not go on: start it again


class CommandError(ZasyncError):
    """A command cannot do what it was asked; the message is the line for the person."""

    exit_code = ExitCode.WRONG


class WorkerBroken(CommandError):
    """A worker that worked cannot go on; a new one may."""

    exit_code = ExitCode.BROKEN


class IdentityTaken(CommandError):
    """Another process lives that works under the UUID that this one was to have."""

    exit_code = ExitCode.IDENTITY_TAKEN


class OneLine(click.ClickException):
    """Ends the process with one line on standard error and an exit code."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.WRONG) -> None:
        super().__init__(message)
        self.exit_code = int(exit_code)  # type: ignore[misc]  # click reads it so

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"zasync: {self.format_message()}", file=file, err=True)


def as_one_line(error: Exception) -> OneLine | None:
    """What to tell of `error`; None if it is not of a kind that one line explains."""
    if isinstance(error, ZasyncError):
        return OneLine(first_line(error), _exit_code(error))
    if classify(error, from_storage=True) in (Trouble.INFRASTRUCTURE, Trouble.READ_ONLY):
        line = f"the database is away: {type(error).__name__}: {first_line(error)}"
        return OneLine(line, ExitCode.STORAGE_AWAY)
    return None


def _exit_code(error: ZasyncError) -> ExitCode:
    if isinstance(error, StorageUnreachable | StorageLocked):
        return ExitCode.STORAGE_AWAY
    return error.exit_code if isinstance(error, CommandError) else ExitCode.WRONG


def first_line(error: BaseException) -> str:
    """What an error says, without its further lines; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
