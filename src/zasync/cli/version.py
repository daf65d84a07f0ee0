# SPDX-License-Identifier: ZPL-2.1
"""`zasync version`: what is installed, for reports of trouble."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of

import click

DISTRIBUTIONS = ("zasync", "ZODB", "ZEO", "transaction", "Twisted", "RelStorage")
OPTIONAL = ("RelStorage",)


@click.command()
def version() -> None:
    """Print the versions of zasync and of what it stands on."""
    for name in DISTRIBUTIONS:
        try:
            click.echo(f"{name} {version_of(name)}")
        except PackageNotFoundError:
            if name not in OPTIONAL:
                click.echo(f"{name} (not installed)")
    click.echo(f"Python {platform.python_version()}")
