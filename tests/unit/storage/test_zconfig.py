# SPDX-License-Identifier: ZPL-2.1
"""Reading ZConfig files: every mistake is told with the file, and the line where there is one."""

from pathlib import Path

import pytest

from zasync.storage import BadConfiguration, open_database
from zasync.storage.zconfig import bound, sections, servers

MAIN = "<zodb main>\n  <mappingstorage>\n  </mappingstorage>\n</zodb>\n"


def written(directory: Path, text: str, name: str = "zasync.conf") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def refusal(path: Path, fragment: str = "", **options: str) -> str:
    with pytest.raises(BadConfiguration) as caught:
        open_database(f"zconfig://{path}{fragment}", **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_missing_file_is_named(tmp_path: Path):
    assert "No such file" in refusal(tmp_path / "missing.conf")


def test_a_directory_is_no_file(tmp_path: Path):
    assert "directory" in refusal(tmp_path)


def test_a_file_that_is_no_text_is_named(tmp_path: Path):
    path = tmp_path / "zasync.conf"
    path.write_bytes(b"<zodb \xff>\n")

    assert "not UTF-8 text" in refusal(path)


def test_a_syntax_error_is_told_with_its_line(tmp_path: Path):
    path = written(tmp_path, "<zodb main>\n  <mappingstorage>\n  </mappingstorage\n</zodb>\n")

    assert f"{path}, line 3: malformed section end" in refusal(path)


def test_an_unknown_key_is_told_with_its_line(tmp_path: Path):
    path = written(tmp_path, "<zodb main>\n  pool-syze 3\n</zodb>\n")

    assert f"{path}, line 2: 'pool-syze'" in refusal(path)


def test_a_bad_value_is_told_with_its_line(tmp_path: Path):
    path = written(tmp_path, "<zodb main>\n  pool-size many\n</zodb>\n")

    assert f"{path}, line 2" in refusal(path)


def test_an_error_in_an_included_file_is_told_with_that_file(tmp_path: Path):
    included = written(tmp_path, "<zodb main>\n  pool-size many\n</zodb>\n", "other.conf")
    path = written(tmp_path, "%include other.conf\n")

    with pytest.raises(BadConfiguration, match=f"{included}, line 2"):
        open_database(f"zconfig://{path}")


def test_an_import_of_a_missing_package_is_told(tmp_path: Path):
    path = written(tmp_path, f"%import nosuchpackage\n{MAIN}")

    assert "nosuchpackage" in refusal(path)


def test_a_file_without_databases_is_refused(tmp_path: Path):
    assert "zodb" in refusal(written(tmp_path, ""))


def test_a_section_without_a_storage_is_refused(tmp_path: Path):
    path = written(tmp_path, "<zodb main>\n</zodb>\n")

    assert "<zodb main>" in refusal(path)


def test_two_sections_of_one_name_are_refused(tmp_path: Path):
    path = written(tmp_path, MAIN + MAIN.replace("zodb main>", "zodb>\ndatabase-name main", 1))

    assert "two <zodb> sections named 'main'" in refusal(path)


def test_a_section_that_is_not_there_is_told_with_those_that_are(tmp_path: Path):
    path = written(tmp_path, MAIN)

    assert "no <zodb> section named 'async'; it has main" in refusal(path, "#async")


def test_two_different_names_for_one_database_are_refused(tmp_path: Path):
    path = written(tmp_path, MAIN)

    assert "'main'" in refusal(path, "#main", database_name="async")


def test_options_belong_into_the_file(tmp_path: Path):
    path = written(tmp_path, MAIN)

    with pytest.raises(BadConfiguration, match="options go into the file"):
        open_database(f"zconfig://{path}?pool_size=3")


def test_no_file_at_all_is_refused():
    with pytest.raises(BadConfiguration, match="write zconfig://FILE#NAME"):
        open_database("zconfig://#main")


def test_a_relative_path_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(written(tmp_path, MAIN).parent)

    db = open_database("zconfig://zasync.conf")
    try:
        assert db.database_name == "main"
    finally:
        db.close()


CLIENTS = """\
%import ZEO
<zodb main>
  <demostorage>
    <clientstorage base>
      server localhost:8100
      server /run/zeo.sock
    </clientstorage>
    <blobstorage changes>
      blob-dir blobs
      <clientstorage>
        server 8101
        wait-timeout 60
      </clientstorage>
    </blobstorage>
  </demostorage>
</zodb>
"""


def test_every_server_in_a_section_is_known(tmp_path: Path):
    section = sections(written(tmp_path, CLIENTS))[0]

    addresses = servers(section)

    assert addresses == "localhost:8100, /run/zeo.sock, 127.0.0.1:8101"


def test_every_client_in_a_section_gets_a_limit_unless_it_has_its_own(tmp_path: Path):
    section = sections(written(tmp_path, CLIENTS))[0]

    bound(section, 3)

    base, changes = section.config.storage.config.factories
    assert base.config.wait_timeout == 3
    assert changes.config.base.config.wait_timeout == 60
