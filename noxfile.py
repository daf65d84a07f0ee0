# SPDX-License-Identifier: ZPL-2.1
"""The tests on every Python that zasync supports.  All other checks are in the Makefile.

An interpreter that is not installed is skipped, and the summary says so.
"""

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Run the tests; arguments after `--` go to pytest."""
    session.install("--quiet", ".[test]")
    session.run("python", "-m", "pytest", "-n", "2", *session.posargs)
