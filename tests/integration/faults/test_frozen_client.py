# SPDX-License-Identifier: ZPL-2.1
"""A ZEO client that is frozen between the two halves of a commit holds up all others.

zasync cannot prevent that.  It goes on by itself once the frozen process is gone, and nothing
is lost; with the server's `transaction-timeout` it does not, which is ZEO's bug.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ZODB
from persistent.mapping import PersistentMapping

from tests.support.processes import other_process
from tests.support.running import Site, running, until
from tests.support.zeo import ZeoServer
from zasync.job import Job
from zasync.storage import close_database, open_database

# Opens the database of its argument and freezes itself when a commit of it has been voted.
FREEZES_IN_COMMIT = """\
import os, signal, sys, transaction
from ZODB.mvccadapter import MVCCAdapterInstance
from zasync.storage import open_database

def freeze(self, *args):
    print("voted", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)

db = open_database(sys.argv[1])
db.open().root()["written by the frozen one"] = True
MVCCAdapterInstance.tpc_finish = freeze
transaction.commit()
"""


class Ledger(PersistentMapping):
    """Counts what was committed, by name."""

    def note(self, name: str) -> None:
        self[name] = self.get(name, 0) + 1


class ImpatientServer(ZeoServer):
    """A server with a `transaction-timeout`."""

    def _configuration(self, directory: Path) -> Path:
        config = super()._configuration(directory)
        text = config.read_text()
        config.write_text(text.replace("</zeo>", "  transaction-timeout 1\n</zeo>"))
        return config


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[ZeoServer]:
    with ImpatientServer(str(tmp_path / "Data.fs")) as server:
        yield server


def test_jobs_go_on_when_the_frozen_process_is_gone(zeo_server: ZeoServer) -> None:
    db = open_database(zeo_server.uri)
    site = Site(db)
    ledger = site.root["ledger"] = Ledger()
    site.manager.commit()
    with running(db, poll_interval=0.2) as runner:
        job = site.put(Job(ledger.note, "first"))
        site.completed(job)
        with other_process(FREEZES_IN_COMMIT, zeo_server.uri) as client:
            assert client.line() == "voted"
            done = threading.Event()
            putting = threading.Thread(target=put_another, args=(db, done), daemon=True)
            putting.start()
            polls = runner.dispatcher.polls
            total = polls.total
            assert not done.wait(1.0), "a commit took place though another client is in its own"
            client.kill()
            assert done.wait(30), "the commit went on when the frozen process was gone"
        site.until(lambda: site.root["ledger"].get("second") == 1, "the second job")
        until(lambda: polls.total > total, "further polls")
    assert dict(site.root["ledger"]) == {"first": 1, "second": 1}
    assert "written by the frozen one" not in site.root
    site.close()
    close_database(db)


@pytest.mark.xfail(
    strict=True,
    reason="ZEO 6.2: when its transaction-timeout fires, the lock of the commit is not released",
)
def test_a_transaction_timeout_of_the_server_frees_the_others(impatient: ZeoServer) -> None:
    db = open_database(impatient.uri)
    site = Site(db)
    site.root["ledger"] = Ledger()
    site.manager.commit()
    done = threading.Event()
    with other_process(FREEZES_IN_COMMIT, impatient.uri) as client:
        assert client.line() == "voted"
        until(lambda: "Transaction timeout" in impatient.log(), "the timeout")
        client.kill()
        threading.Thread(target=put_another, args=(db, done), daemon=True).start()
        freed = done.wait(3.0)
        impatient.kill()  # else the waiting thread would wait for ever
        impatient.start()
        assert done.wait(30)
    site.close()
    close_database(db)
    assert freed


def put_another(db: ZODB.DB, done: threading.Event) -> None:
    site = Site(db)
    # A job made anew for each try: what was new in a commit that was cut off is of no use.
    site.commit(lambda: site.queue.put(Job(site.root["ledger"].note, "second")))
    done.set()
    site.close()
