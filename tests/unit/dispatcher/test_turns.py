# SPDX-License-Identifier: ZPL-2.1
"""Turns: one after the other, but nobody waits for long."""

from __future__ import annotations

import threading

import pytest

from zasync.dispatcher import turns
from zasync.dispatcher.turns import Turns


def test_a_turn_is_over_when_its_block_is() -> None:
    taking = Turns()
    for _ in range(2):
        with taking.turn() as mine:
            assert mine
    with pytest.raises(KeyError), taking.turn():
        raise KeyError
    with taking.turn() as mine:
        assert mine


def test_another_thread_waits_until_the_turn_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST", 30)
    taking, had = Turns(), []

    def take() -> None:
        with taking.turn() as mine:
            had.append(mine)

    other = threading.Thread(target=take)
    with taking.turn():
        other.start()
        assert had == []
    other.join(30)
    assert had == [True]


def test_who_has_waited_long_enough_goes_on_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LONGEST", 0.001)
    taking = Turns()
    with taking.turn(), taking.turn() as mine:
        assert not mine
    with taking.turn() as mine:
        assert mine


def test_who_wants_none_does_not_wait() -> None:
    taking = Turns()
    with taking.turn(), taking.turn(wanted=False) as mine:
        assert not mine
    with taking.turn() as mine:
        assert mine
