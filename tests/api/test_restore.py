"""A backup in a database's place: it is there whole, whatever lay beside the old one, and whenever that breaks off."""

import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager, suppress

import pytest

from api.commands import main
from api.restore import restore
from api.schema import VERSION, backup
from api.serve import take_folder
from api.store import Store
from engine.jobdocument import read
from engine.jobs import Rules
from tests.api.auditing import audit, created, new_database

NOW = 1_700_000_000_000
STEPS = {"os.rename", "os.link", "os.remove", "os.chmod", "os.chown", "sqlite3.connect"}  # as Python tells of them


def uids(path):
    """The jobs of a sound database."""
    store = Store(path, rules=Rules())
    try:
        return set(audit(store))
    finally:
        store.close()


def add(store, names):
    for name in names:
        document = {b"uid": name.encode(), b"x": b"y" * 3000}
        text = b'{"template":{"src":"file:///a.aep","composition":"c"},"uid":"%(uid)b","x":"%(x)b"}' % document
        created(store, [read(text)], now=NOW)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder with the database of a server that was killed (old), and a backup made before that (new)."""
    folder = tmp_path_factory.mktemp("killed")
    path = folder / "running" / "mashtun.db"
    new_database(path)
    store = Store(path, rules=Rules())
    add(store, [f"new{n}" for n in range(9)])
    backup(path, folder / "backup.db")
    store.remove("new0", now=NOW)
    add(store, [f"old{n}" for n in range(30)])
    shutil.copytree(path.parent, folder / "data")
    store.close()
    return folder


NEW = {f"new{n}" for n in range(9)}
OLD = NEW - {"new0"} | {f"old{n}" for n in range(30)}


@pytest.fixture
def folder(killed, tmp_path):
    shutil.copytree(killed, tmp_path / "it")
    return tmp_path / "it"


def test_a_backup_takes_the_place_of_what_a_killed_server_left_and_that_is_kept(folder, capsys):
    data, kept = folder / "data", folder / "data" / "mashtun.db.before-restore-1"
    assert main(["restore", "--data", str(data), str(folder / "backup.db")]) == 0
    assert capsys.readouterr().out == f"what was there is {kept}\n"
    assert {each.name for each in data.iterdir()} == {"mashtun.db", kept.name, "serve.lock"}
    assert (uids(data / "mashtun.db"), uids(kept)) == (NEW, OLD)
    assert main(["restore", "--data", str(data), str(kept)]) == 0  # and the way back
    assert (uids(data / "mashtun.db"), uids(data / "mashtun.db.before-restore-2")) == (OLD, NEW)


def test_a_restore_that_is_killed_leaves_the_old_jobs_or_the_new_ones(folder):
    data = folder / "data"
    shutil.copytree(data, folder / "copy")
    for last in range(100):
        child = os.fork()
        if child == 0:
            try:
                die_after(last)
                restore(folder / "backup.db", data / "mashtun.db")
                os._exit(0)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = uids(data / "mashtun.db")
        assert found in (OLD, NEW), last
        if code == 0:
            break
        if found == NEW:
            shutil.rmtree(data)
            shutil.copytree(folder / "copy", data)
    assert (code, found) == (0, NEW)
    assert last > 10
    assert not list(data.glob("*.restored*"))


def die_after(steps):
    """Ends this process before the next one of `STEPS` when it has made so many."""
    made = 0

    def count(event, _):
        nonlocal made
        if event in STEPS:
            made += 1
            if made > steps:
                os._exit(9)

    sys.addaudithook(count)


@pytest.mark.parametrize("content", [b"damaged", b"damaged " * 1000])
@pytest.mark.parametrize("beside", ["-wal", "-journal"])
def test_a_damaged_database_is_replaced_and_kept(folder, content, beside):
    path = folder / "data" / "mashtun.db"
    path.write_bytes(content)
    path.with_name("mashtun.db-wal").rename(path.with_name(f"mashtun.db{beside}"))
    kept = restore(folder / "backup.db", path)
    assert uids(path) == NEW
    assert kept.exists()


def test_what_is_kept_never_takes_in_what_another_database_left(folder):
    """Its own `-wal` without it has the first name; a second name of the database itself is one that it may have."""
    data, path = folder / "data", folder / "data" / "mashtun.db"
    path.unlink()
    assert restore(folder / "backup.db", path) is None
    assert (data / "mashtun.db.before-restore-1-wal").exists()
    os.link(path, data / "mashtun.db.before-restore-2")  # by one that was killed
    assert restore(folder / "backup.db", path) == data / "mashtun.db.before-restore-2"
    assert uids(data / "mashtun.db.before-restore-2") == uids(path) == NEW
    assert path.stat().st_nlink == 1


def test_a_copy_that_a_killed_restore_left_is_no_backup_and_stays(folder, capsys):
    for name in ("mashtun.db.restored", "mashtun.db.restored.part"):
        left = folder / "data" / name
        shutil.copy(folder / "backup.db", left)
        assert main(["restore", "--data", str(left.parent), str(left)]) == 1
        assert "name the backup itself" in capsys.readouterr().err
        assert left.exists()


def with_files_up_to(longest, *command):
    """What becomes of a command on a disk on which no file can be longer than that, in bytes."""
    limits = longest, resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    return subprocess.run(
        [sys.executable, "-m", "api", *command],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limits),
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        check=False,
    )


def test_a_backup_of_before_for_which_there_is_no_room_when_it_is_brought_up_to_date_is_refused(folder):
    """A disk on which nothing can be longer than it is already."""
    file, data = folder / "backup.db", folder / "data"
    with closing(sqlite3.connect(file)) as made:
        made.execute("DROP TABLE ended")
        made.execute("UPDATE alembic_version SET version_num = '0002'")
        made.commit()
        made.execute("VACUUM")
    result = with_files_up_to(file.stat().st_size, "restore", "--data", str(data), str(file))
    assert (result.returncode, uids(data / "mashtun.db")) == (1, OLD)
    assert result.stderr.splitlines()[-1].startswith(f"mashtun: {file}: ")


def test_a_backup_for_which_there_is_no_room_says_which_file_that_is(folder):
    longest = (folder / "data" / "mashtun.db").stat().st_size // 2
    result = with_files_up_to(longest, "backup", "--data", str(folder / "data"), str(folder / "new.db"))
    assert (result.returncode, list(folder.glob("*new.db*"))) == (1, [])
    assert result.stderr.startswith(f"mashtun: {folder / 'new.db'}: ")


def test_owner_and_mode_stay(folder):
    path = folder / "data" / "mashtun.db"
    path.chmod(0o664)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12346)
    was = path.stat()
    restore(folder / "backup.db", path)
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (was.st_uid, was.st_gid, 0o660)


def test_a_new_machine_has_the_backup_and_nothing_else(folder, tmp_path, capsys):
    data = tmp_path / "a" / "new one"
    assert main(["restore", "--data", str(data), str(folder / "backup.db")]) == 0
    assert capsys.readouterr().out == ""
    assert {each.name for each in data.iterdir()} == {"mashtun.db", "serve.lock"}
    assert (data / "mashtun.db").stat().st_mode & 0o777 == 0o600
    assert uids(data / "mashtun.db") == NEW


def test_what_lies_beside_no_database_does_not_come_into_the_new_one(folder):
    path = folder / "data" / "mashtun.db"
    path.unlink()
    assert restore(folder / "backup.db", path) is None
    assert uids(path) == NEW


def test_a_database_behind_a_link_is_replaced_where_it_is(folder):
    (folder / "data").rename(folder / "disk")
    (folder / "data").mkdir()
    (folder / "data" / "mashtun.db").symlink_to(folder / "disk" / "mashtun.db")
    restore(folder / "backup.db", folder / "data" / "mashtun.db")
    assert (folder / "data" / "mashtun.db").is_symlink()
    assert uids(folder / "disk" / "mashtun.db") == NEW


def spoil(path, case):
    """Makes of a backup what is none."""
    if case == "text":
        path.write_text("no database " * 1000)
    elif case == "none":
        path.unlink()
    elif case == "empty":
        path.write_bytes(b"")
    elif case == "damaged":
        with path.open("r+b") as file:
            file.seek(-8192, os.SEEK_END)
            file.write(b"\xff" * 4096)
    elif case == "cut":
        os.truncate(path, path.stat().st_size - 8192)
    else:
        with closing(sqlite3.connect(path)) as made:
            made.execute("DROP TABLE jobs" if case == "foreign" else "UPDATE alembic_version SET version_num = '9999'")
            made.commit()


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("text", "file is not a database"),
        ("none", "no such database"),
        ("empty", "no database of jobs"),
        ("foreign", "no database of jobs"),
        ("damaged", "the database is damaged"),
        ("cut", "database disk image is malformed"),
        ("newer", f"the database has version 9999, newer than {VERSION}"),
    ],
)
def test_what_is_no_backup_is_refused_with_a_sentence_and_changes_nothing(folder, capsys, case, reason):
    file, data = folder / "backup.db", folder / "data"
    spoil(file, case)
    before = {each.name for each in data.iterdir()} | {"serve.lock"}
    assert main(["restore", "--data", str(data), str(file)]) == 1
    assert capsys.readouterr().err == f"mashtun: {file}: {reason}\n"
    assert {each.name for each in data.iterdir()} == before
    assert uids(data / "mashtun.db") == OLD


def test_nothing_is_restored_under_a_server_or_whoever_else_has_the_database_open(folder, capsys, monkeypatch):
    monkeypatch.setattr("api.serve.LOCK_PATIENCE", 0)
    data = folder / "data"
    with take_folder(data):
        assert main(["restore", "--data", str(data), str(folder / "backup.db")]) == 1
    assert capsys.readouterr().err == f'mashtun: data folder "{data}" is in use by a server\n'
    with closing(sqlite3.connect(data / "mashtun.db")) as other:
        other.execute("SELECT count(*) FROM jobs")
        assert main(["restore", "--data", str(data), str(folder / "backup.db")]) == 1
    assert capsys.readouterr().err == f"mashtun: {data / 'mashtun.db'}: database is locked\n"
    assert uids(data / "mashtun.db") == OLD


def test_a_backup_can_be_read_where_nothing_can_be_written(folder):
    """As SQLite needs no file beside it: the header says that no WAL belongs to it (file format 1.3.3)."""
    assert (folder / "backup.db").read_bytes()[18:20] == b"\1\1"


def test_a_backup_takes_the_name_of_another_without_what_lay_beside_that(folder):
    path, daily = folder / "data" / "mashtun.db", folder / "daily.db"
    for each in ("", "-wal"):
        shutil.copy(f"{path}{each}", f"{daily}{each}")
    backup(folder / "backup.db", daily)
    assert uids(daily) == NEW


def test_a_backup_does_not_take_the_place_of_the_database(folder, capsys):
    path = folder / "data" / "mashtun.db"
    assert main(["backup", "--data", str(path.parent), str(path)]) == 1
    assert capsys.readouterr().err == f"mashtun: {path}: the database itself\n"
    assert uids(path) == OLD


def test_a_backup_goes_where_a_link_leads_and_the_link_stays(folder):
    link, disk = folder / "latest.db", folder / "disk"
    disk.mkdir()
    for n in range(2):  # what it leads to is made, then replaced
        link.unlink(missing_ok=True)
        link.symlink_to(disk / "latest.db")
        backup(folder / "backup.db", link)
        assert (link.is_symlink(), uids(disk / "latest.db")) == (True, NEW), n
    assert [each.name for each in disk.iterdir()] == ["latest.db"]


@pytest.mark.parametrize("kind", ["pipe", "link to a pipe", "circle", "folder", "descriptor"])
def test_a_backup_replaces_nothing_that_is_no_file(folder, capsys, kind):
    target, led = folder / "target", folder / "led"
    with (folder / "caught").open("wb") as caught:
        if kind == "folder":
            target.mkdir()
        elif kind == "descriptor":  # as /dev/stdout is, which a shell may have redirected to a file
            led.symlink_to(f"/proc/self/fd/{caught.fileno()}")
            target.symlink_to("led")
        elif kind == "pipe":
            os.mkfifo(target)
        elif kind == "circle":
            target.symlink_to("target")
        else:
            os.mkfifo(led)
            target.symlink_to("led")
        before = {each: each.lstat().st_ino for each in folder.iterdir()}
        assert main(["backup", "--data", str(folder / "data"), str(target)]) == 1
        assert capsys.readouterr().err == f"mashtun: {target}: is not a file\n"
        assert {each: each.lstat().st_ino for each in folder.iterdir()} == before


@contextmanager
def a_backup(source, target, until):
    """Another process that makes one, as far as Python's audit event `until`; it goes on when it is told to."""
    here, there = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            here.close()
            stop_at(until, there)
            os._exit(main(["backup", "--data", str(source), str(target)]))
        finally:
            os._exit(9)
    there.close()
    try:
        assert here.recv(1) == b"."
        yield child, here
    finally:
        here.close()
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


def stop_at(until, connection):
    """Says so and waits, the first time this process comes to an audit event."""
    is_over = False

    def look(event, _):
        nonlocal is_over
        if event == until and not is_over:
            is_over = True
            connection.send(b".")
            connection.recv(1)

    sys.addaudithook(look)


def end_of(child, connection):
    """The exit code of who goes on."""
    connection.send(b".")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_backup_waits_for_no_other_one_to_the_same_file_and_does_it_no_harm(folder, capsys):
    target = folder / "daily.db"
    with a_backup(folder / "data", target, "sqlite3.connect") as other:
        assert main(["backup", "--data", str(folder / "data"), str(target)]) == 1
        assert capsys.readouterr().err == f"mashtun: {target}: another backup is being written to it\n"
        backup(folder / "backup.db", folder / "weekly.db")
        assert end_of(*other) == 0
    assert (uids(target), uids(folder / "weekly.db")) == (OLD, NEW)
    assert not list(folder.glob("*.part*"))


def test_a_backup_takes_no_lock_on_what_another_one_has_removed(folder):
    target = folder / "daily.db"
    with a_backup(folder / "data", target, "fcntl.flock") as late:
        backup(folder / "backup.db", target)
        assert end_of(*late) == 1
    assert uids(target) == NEW
    assert not list(folder.glob("*.part*"))


def test_a_backup_follows_one_that_was_killed(folder):
    target = folder / "daily.db"
    with a_backup(folder / "data", target, "sqlite3.connect") as (child, _):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert {each.name for each in folder.glob("*.part*")} == {"daily.db.part", "daily.db.part.lock"}
    backup(folder / "backup.db", target)
    assert uids(target) == NEW
    assert not list(folder.glob("*.part*"))
