"""A data folder, or a file in it, that others could change is refused; what is kept is ours alone to read."""

import os
import stat
import sys

import psutil
import pytest

from shared.cli.places import stack_of
from shared.local import ownership
from shared.local.datadir import DataDir, private_folder
from shared.local.errors import LocalError
from shared.local.ownership import FileFacts, fault
from shared.local.postgres import FOR_TESTS_ONLY, PostgreSQL
from tests.processes import data_dir

US, ROOT, STRANGER = 1000, 0, 1001
SEALED = {"PATH", "LANG", "TZ", "HOME"}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of somebody else's")


@pytest.fixture
def home():
    """A folder that the servers may enter, on the way to which nobody else may write."""
    with data_dir() as data:
        data.close()
        yield data.path


@pytest.mark.parametrize(
    ("seen", "on_the_way", "found"),
    [
        pytest.param(FileFacts("folder", US, 0o700), False, None, id="ours"),
        pytest.param(FileFacts("folder", US, 0o711), False, None, id="others pass through"),
        pytest.param(FileFacts("folder", US, 0o755), False, None, id="others look"),
        pytest.param(FileFacts("folder", US, 0o757), False, "mode", id="others write"),
        pytest.param(FileFacts("folder", US, 0o1777), False, "mode", id="the sticky bit does not make it ours"),
        pytest.param(FileFacts("folder", US, 0o775), False, "mode", id="a group writes"),
        pytest.param(FileFacts("folder", US, 0o775, private_group=True), False, "mode", id="be it our own"),
        pytest.param(FileFacts("folder", STRANGER, 0o700), False, "owner", id="a stranger's"),
        pytest.param(FileFacts("file", US, 0o600), False, None, id="our file"),
        pytest.param(FileFacts("file", US, 0o644), False, None, id="others read it"),
        pytest.param(FileFacts("file", US, 0o664), False, "mode", id="a group writes it"),
        pytest.param(FileFacts("file", US, 0o602), False, "mode", id="others write it"),
        pytest.param(FileFacts("file", STRANGER, 0o644), False, "owner", id="a stranger's file"),
        pytest.param(FileFacts("link", US, 0o777), False, "link", id="a link, though ours"),
        pytest.param(FileFacts("link", US, 0o777), True, None, id="on the way it is followed"),
        pytest.param(FileFacts("link", STRANGER, 0o777), True, "owner", id="not a stranger's"),
        pytest.param(FileFacts("folder", ROOT, 0o755), True, None, id="root's"),
        pytest.param(FileFacts("folder", ROOT, 0o1777), True, None, id="as /tmp: nobody can touch what is ours"),
        pytest.param(FileFacts("folder", ROOT, 0o777), True, "mode", id="others could put another folder in its place"),
        pytest.param(FileFacts("folder", US, 0o775), True, "mode", id="a group could"),
        pytest.param(FileFacts("folder", US, 0o775, private_group=True), True, None, id="we are alone in that group"),
        pytest.param(FileFacts("folder", US, 0o777, private_group=True), True, "mode", id="and the rest of the world"),
        pytest.param(FileFacts("folder", STRANGER, 0o755), True, "owner", id="a stranger could, in his own"),
    ],
)
def test_what_others_could_change(seen, on_the_way, found):
    assert fault(seen, {US, ROOT}, on_the_way=on_the_way) == found


@pytest.mark.parametrize("mode", [0o777, 0o773, 0o1777, 0o770])
def test_a_data_folder_that_others_may_write_to_is_refused_with_what_to_do(home, mode):
    folder = home / "data"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(LocalError, match=rf"Other users may write to {folder} .*chmod go-w {folder}"):
        DataDir.open(folder)
    folder.chmod(mode & 0o755)
    DataDir.open(folder).close()


@as_root
def test_a_data_folder_of_somebody_else_is_refused(home):
    folder = home / "data"
    folder.mkdir()
    os.chown(folder, 1, 1)
    with pytest.raises(LocalError, match=rf"{folder} belongs to another user \(\w+\)\. Start as that user"):
        DataDir.open(folder)


def test_a_folder_above_that_others_may_write_to_is_refused(home):
    """Whoever may write there can put a folder of his own in ours' place, today or between two starts."""
    above = home / "open"
    above.mkdir()
    above.chmod(0o777)
    with pytest.raises(LocalError, match=rf"Other users may write to {above} "):
        DataDir.open(above / "data")
    above.chmod(0o1777)
    DataDir.open(above / "data").close()


def test_a_link_above_is_looked_behind(home):
    """`ours/way` is a link in a folder of ours, but it leads through one that others may write to."""
    (home / "open").mkdir()
    (home / "open").chmod(0o777)
    (home / "open" / "inner").mkdir()
    (home / "way").symlink_to(home / "open" / "inner")
    with pytest.raises(LocalError, match=rf"Other users may write to {home}/open "):
        DataDir.open(home / "way" / "data")
    (home / "open").chmod(0o755)
    data = DataDir.open(home / "way" / "data")
    data.close()
    assert data.path == home / "open" / "inner" / "data", "and is not asked again"


@as_root
def test_a_link_that_somebody_else_made_is_not_followed(home):
    """In a folder with the sticky bit, such as /tmp: it may lead to a folder of ours now and to another one later."""
    shared = home / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (home / "ours").mkdir()
    (shared / "data").symlink_to(home / "ours")
    os.lchown(shared / "data", 1, 1)
    for path in (shared / "data", shared / "data" / "deeper"):
        with pytest.raises(LocalError, match=rf"{shared}/data belongs to another user"):
            DataDir.open(path)
    assert list((home / "ours").iterdir()) == []


def test_links_in_a_circle_end(home):
    (home / "a").symlink_to("b")
    (home / "b").symlink_to("a")
    with pytest.raises(LocalError, match="circle"):
        DataDir.open(home / "a" / "data")


@pytest.mark.parametrize(
    "name", ["kept.json", "stack.json", "valkey.conf", "valkey", "flower", "flower.db", "postgres"]
)
def test_a_link_in_the_data_folder_is_not_followed(home, name):
    (home / "target").mkdir()
    (home / "data").mkdir()
    (home / "data" / name).symlink_to(home / "target")
    with pytest.raises(LocalError, match=rf"data/{name} is a link"):
        DataDir.open(home / "data")


def test_the_lock_is_no_way_to_write_into_another_file(home):
    precious = home / "precious"
    precious.write_text("precious")
    (home / "data").mkdir()
    (home / "data" / "lock").symlink_to(precious)
    with pytest.raises(LocalError, match="lock is a link"):
        DataDir.open(home / "data")
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("name", ["kept.json", "stack.json", "valkey.conf", "flower", "flower.tmp", "postgres"])
def test_a_file_that_others_may_write_to_is_refused(home, name):
    folder = home / "data"
    folder.mkdir()
    (folder / name).touch()
    (folder / name).chmod(0o666)
    with pytest.raises(LocalError, match=rf"Other users may write to {folder}/{name} \(mode 0666\)"):
        DataDir.open(folder)


@as_root
@pytest.mark.parametrize("name", ["kept.json", "stack.json", "valkey", "flower", "postgres", "lock"])
def test_a_file_of_somebody_else_is_refused(home, name):
    folder = home / "data"
    folder.mkdir()
    (folder / name).touch(mode=0o600)
    os.chown(folder / name, 1, 1)
    with pytest.raises(LocalError, match=rf"{folder}/{name} belongs to another user"):
        DataDir.open(folder)


def test_what_is_not_ours_to_keep_is_not_looked_at(home):
    (home / "notes.txt").touch()
    (home / "notes.txt").chmod(0o666)
    DataDir.open(home).close()


def test_all_that_is_made_is_private_whatever_the_umask(home):
    before = os.umask(0o000)
    try:
        data = DataDir.open(home / "above" / "data")
        data.secret("a")
        private_folder(home / "history")
    finally:
        os.umask(before)
    data.close()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home / "above").rglob("*")}
    assert modes == {"data": 0o711, "lock": 0o600, "kept.json": 0o600}
    assert stat.S_IMODE((home / "above").stat().st_mode) == 0o711, "PostgreSQL's user has to pass"
    assert stat.S_IMODE((home / "history").stat().st_mode) == 0o700


def test_a_lock_that_an_earlier_version_left_open_is_closed(home):
    (home / "lock").touch()
    (home / "lock").chmod(0o664)
    DataDir.open(home).close()
    assert stat.S_IMODE((home / "lock").stat().st_mode) == 0o600


def test_a_command_does_not_believe_a_stack_json_that_others_could_have_written(home):
    """It says to which database a command goes."""
    (home / "stack.json").write_text("{}")
    assert stack_of(home) == {}
    (home / "stack.json").chmod(0o666)
    with pytest.raises(LocalError, match="Other users may write to"):
        stack_of(home)
    (home / "stack.json").rename(home / "elsewhere")
    (home / "elsewhere").chmod(0o600)
    (home / "stack.json").symlink_to(home / "elsewhere")
    with pytest.raises(LocalError, match="is a link"):
        stack_of(home)
    os.mkfifo(home / "fifo", 0o600)
    with pytest.raises(LocalError, match="is no file"):
        ownership.open_file(home / "fifo")
    with pytest.raises(FileNotFoundError):
        stack_of(home / "nowhere")


def test_a_person_is_told_in_one_line(home, processes):
    home.chmod(0o777)
    (home / "stack.json").touch(mode=0o666)
    (home / "stack.json").chmod(0o666)
    redraft = [sys.executable, "-m", "shared.cli.main"]
    for command in (["up"], ["flower"], ["workspaces", "list"], ["doctor"]):
        environment = {"REDRAFT_REDIS_URL": "redis://127.0.0.1:9/0"} if command == ["flower"] else {}
        said = processes.start([*redraft, *command, f"--data-dir={home}"], **environment)
        assert said.wait(within=30) == 1, said.output()
        assert "Other users may write to" in said.output()
        assert len(said.output().strip().splitlines()) == 1, said.output()
    home.chmod(0o711)


def test_a_server_gets_four_variables_of_the_environment_and_nothing_else(monkeypatch, postgres, valkey):
    """Keys of other programs stand in ours, and PG* would change what PostgreSQL does."""
    for name in ("AWS_SECRET_ACCESS_KEY", "PGDATA", "LC_ALL", "REDRAFT_SERVICE_SECRET", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "planted")
    with data_dir() as data:
        server = PostgreSQL(data, settings=FOR_TESTS_ONLY)
        server.prepare()  # initdb too: it would have failed with another PGDATA
        for child in (server.child(), valkey.child()):
            assert set(child.environment or {}) == SEALED
            assert child.starts_in() is None
            assert "planted" not in " ".join(child.command())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_running_server_holds_none_of_ours(own_postgres, own_valkey):
    for server in (own_postgres, own_valkey):
        pid = server.process.pid
        assert os.environ.keys() - SEALED, "there is something to be left out"
        assert set(psutil.Process(pid).environ()) <= SEALED
        # PostgreSQL's own children as well.
        for child in psutil.Process(pid).children(recursive=True):
            assert set(child.environ()) <= SEALED | {"PGDATA"}
