# SPDX-License-Identifier: ZPL-2.1
"""Where a thread is, as a watch shows it."""

from __future__ import annotations

import threading

from tests.support.running import until
from zasync.dispatcher.watch import FRAMES, stack_of


def dive(depth: int, reached: threading.Event, release: threading.Event) -> None:
    secret = "open sesame"
    if depth:
        dive(depth - 1, reached, release)
    else:
        reached.set()
        release.wait(20)
    assert secret


def test_a_stack_is_bounded_and_without_variables() -> None:
    reached, release = threading.Event(), threading.Event()
    thread = threading.Thread(target=dive, args=(200, reached, release))
    thread.start()
    try:
        until(reached.is_set, "the bottom")
        shown = stack_of(thread.ident)
    finally:
        release.set()
        thread.join()
    assert "in wait" in shown.splitlines()[-2], "the innermost comes last"
    assert "in dive" in shown
    assert "sesame" not in shown.replace('secret = "open sesame"', "")
    assert shown.count("File ") <= FRAMES


def test_a_thread_that_is_gone_has_no_stack() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    assert "no thread" in stack_of(thread.ident)
    assert "no thread" in stack_of(None)
