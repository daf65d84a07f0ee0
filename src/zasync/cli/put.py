# SPDX-License-Identifier: ZPL-2.1
"""`zasync put`: put one job in a queue, and wait for its result if asked to."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from typing import Any

import click

from zasync.cli.errors import CommandError, first_line
from zasync.cli.opening import connected, db_option, find_queue, install_queues, opened
from zasync.failure import Failure
from zasync.foundation import attempts, clock
from zasync.foundation.errors import Trouble, classify
from zasync.foundation.text import safe_repr
from zasync.interfaces import CALLBACKS, COMPLETED
from zasync.job import Job
from zasync.storage import is_file_storage

LOOK_EVERY = 0.05  # seconds between two looks at a job that is waited for
TRIES = 20  # of a put that conflicts with others
FAILED = 1
TIMED_OUT = 124  # like timeout(1)

_KEYWORD = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)  # JSON never begins like that


class NotImportable(CommandError, ImportError):
    """The application's module or function is not to be found."""


class NotJSON(CommandError, ValueError):
    """An argument is not JSON."""


@click.command(context_settings={"ignore_unknown_options": True})  # -1 is an argument
@db_option
@click.option("--queue", "queue_name", default="", metavar="NAME", help="The queue; by default ''.")
@click.option("--kwargs", metavar="JSON", help="Keyword arguments, as one JSON object.")
@click.option("--wait", is_flag=True, help="Wait for the result, and print it as JSON.")
@click.option("--timeout", type=click.FloatRange(min=0), metavar="S", help="Wait so many seconds.")
@click.argument("function", metavar="MODULE:FUNCTION")
@click.argument("arguments", nargs=-1, metavar="[JSON | NAME=JSON]...")
def put(
    uri: str,
    queue_name: str,
    kwargs: str | None,
    wait: bool,
    timeout: float | None,
    function: str,
    arguments: tuple[str, ...],
) -> None:
    """Have MODULE:FUNCTION called with the arguments, each of which is JSON.

    The module is also looked for in the working directory.  With --wait the result is printed;
    of a job that fails the traceback goes to standard error, and the exit code is 1 (124 if
    --timeout is over; the job stays where it is).
    """
    callable = find_callable(function)
    args, keywords = read_arguments(arguments, kwargs)
    if wait and is_file_storage(uri):
        raise CommandError(
            f"{uri} is a FileStorage, which admits one process at a time, so no worker could do"
            " the job while this waits: put it without --wait, or share the file through ZEO"
        )
    with opened(uri) as db, connected(db) as connection:
        job = put_job(connection, queue_name, lambda: Job(callable, *args, **keywords))
        if not wait:
            click.echo(f"put job {job.oid} in queue {queue_name!r} of {uri}")
            return
        print_result(job, await_end(job, timeout))


def find_callable(name: str) -> Any:
    """What MODULE:FUNCTION names; NotImportable if it is not there."""
    module_name, colon, qualname = name.partition(":")
    if not (module_name and colon and qualname):
        raise NotImportable(f"{name!r} names no function: write MODULE:FUNCTION")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a module may raise anything while it is imported
        raise NotImportable(
            f"cannot import {module_name!r}: {type(error).__name__}: {first_line(error)}"
        ) from error
    for part in qualname.split("."):
        try:
            found = getattr(found, part)
        except AttributeError as error:
            raise NotImportable(f"module {module_name!r} has no {qualname!r}") from error
    if not callable(found):
        raise NotImportable(f"{name} cannot be called: it is {safe_repr(found)}")
    return found


def read_arguments(
    arguments: tuple[str, ...], kwargs: str | None
) -> tuple[list[Any], dict[str, Any]]:
    """The positional and the keyword arguments that the words of the command line say."""
    args: list[Any] = []
    keywords: dict[str, Any] = {}
    if kwargs is not None:
        keywords = _read(kwargs)
        if not isinstance(keywords, dict):
            raise NotJSON(f"--kwargs must be a JSON object such as '{{\"a\": 1}}', not {kwargs}")
    for word in arguments:
        keyword = _KEYWORD.fullmatch(word)
        if keyword is None:
            args.append(_read(word))
        elif keyword[1] in keywords:
            raise NotJSON(f"the keyword argument {keyword[1]!r} is given twice")
        else:
            keywords[keyword[1]] = _read(keyword[2])
    return args, keywords


def _read(word: str) -> Any:
    try:
        return json.loads(word)
    except ValueError as error:
        raise NotJSON(
            f"the argument {word!r} is not JSON ({first_line(error)});"
            f" a string is written with both quotes: '{json.dumps(word)}'"
        ) from error


def put_job(connection: Any, queue_name: str, make: Callable[[], Any]) -> Any:
    """Put the job that `make` makes, and commit; answers it.

    After an error that leaves open whether the commit took effect the database is asked.
    """
    manager = connection.transaction_manager
    for _ in range(TRIES):
        oid = home = None
        manager.begin()
        try:
            job = _put_new(connection, queue_name, make)
            oid, home = job._p_oid, job._p_jar
            manager.commit()
            return job
        except Exception as error:
            attempts.end(manager)
            trouble = classify(error, from_storage=True)
            if trouble is Trouble.OTHER:
                raise
            if trouble is Trouble.CONFLICT:
                continue
            if home is None:
                raise CommandError(
                    f"the database went away ({first_line(error)}), and nothing was put"
                ) from error
            found = _find_put(home, oid, error)
            if found is not None:
                return found
    raise CommandError("the queue could not be written to; nothing was put, try again")


def _find_put(home: Any, oid: Any, error: Exception) -> Any:
    """The job that was to be put under `oid`, None if it was not; CommandError if none can tell."""
    try:
        home.transaction_manager.begin()
        return home.get(oid)
    except KeyError:  # no record has this number, which was given to nobody else
        return None
    except Exception:
        attempts.end(home.transaction_manager)
        raise CommandError(
            f"the database went away ({first_line(error)}), and the job may be put or not:"
            " look at the queue before you put it again"
        ) from error


def _put_new(connection: Any, queue_name: str, make: Callable[[], Any]) -> Any:
    root = connection.root()
    if not queue_name:
        install_queues(root)
    queue = find_queue(root, queue_name)
    try:
        job = queue.put(make())
    except (TypeError, ValueError) as error:  # the queue refuses it, and says why
        raise CommandError(first_line(error)) from error
    home = queue._p_jar or connection  # a queue that was just made has none yet
    home.add(job)  # so that it can be asked for after a doubtful commit
    return job


def await_end(job: Any, timeout: float | None) -> Any:
    """The result of `job` once it has one; exits if that takes longer than `timeout` seconds."""
    manager = job._p_jar.transaction_manager
    deadline = None if timeout is None else clock.monotonic() + timeout
    while True:
        manager.begin()
        if job.status in (CALLBACKS, COMPLETED):
            return job.result
        if deadline is not None and clock.monotonic() >= deadline:
            click.echo(f"zasync: job {job.oid} has no result yet; it is {job.status}", err=True)
            raise click.exceptions.Exit(TIMED_OUT)
        manager.abort()
        clock.wait(None, LOOK_EVERY)


def print_result(job: Any, result: Any) -> None:
    """Print the result as JSON; exits if it is a Failure."""
    if isinstance(result, Failure):
        click.echo(result.getTraceback(), err=True)
        raise click.exceptions.Exit(FAILED)
    try:
        text = json.dumps(result)
    except (TypeError, ValueError):
        text = json.dumps(safe_repr(result))
        click.echo("zasync: the result is not JSON; this is its repr", err=True)
    click.echo(text)
