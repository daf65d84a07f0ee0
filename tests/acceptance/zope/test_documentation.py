# SPDX-License-Identifier: ZPL-2.1
"""docs/zope.md, followed to the letter: from a new instance to a finished job."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import transaction

from tests.support.zeo import ZeoServer
from tests.support.zope_instance import ADMIN, ROOT, ZopeInstance
from zasync.storage import close_database, open_database

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

PAGE = (ROOT / "docs" / "zope.md").read_text(encoding="utf-8")


def block(kind: str, marker: str) -> str:
    """The one block in the language `kind` that has `marker` in it."""
    blocks = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    [found] = [text for text in blocks if marker in text]
    return str(found)


@pytest.fixture
def instance(tmp_path: Path, zeo_server: ZeoServer) -> Iterator[ZopeInstance]:
    main = block("apacheconf", "<zodb_db main>").replace("localhost:9991", zeo_server.address)
    [storage] = re.findall(r"<zeoclient>.*?</zeoclient>", main, re.DOTALL)
    (tmp_path / "newsroom.py").write_text(block("python", "# newsroom.py"))
    made = ZopeInstance(tmp_path / "instance", storage, python_path=tmp_path)
    made.add_to_zcml(block("xml", "zasync.integrations.zope") + block("xml", "newsroom"))
    made.add_to_conf(block("text", "%import zasync.integrations.zope"))
    yield made
    made.end()


def test_the_page_leads_from_an_instance_to_a_finished_job(
    instance: ZopeInstance, zeo_server: ZeoServer
) -> None:
    instance.start_web()
    instance.start_worker()

    answer = instance.visitor(ADMIN).get("/count-words")
    assert answer.status == 200, answer.body
    assert "It is being counted." in str(answer.body)

    def counted() -> list[object]:
        db = open_database(zeo_server.uri)
        manager = transaction.TransactionManager()
        connection = db.open(transaction_manager=manager)
        try:
            [record] = connection.root()["zasync"][""].dispatchers.values()
            return [job.result for job in record["main"].completed]
        finally:
            manager.abort()
            connection.close()
            close_database(db)

    instance.wait_until(lambda: "works queue ''" in instance.logs(), "the worker")
    instance.wait_until(counted, "the job")
    [result] = counted()
    assert isinstance(result, dict)
    assert result["acl_users"] == 2  # its title is "User Folder"
