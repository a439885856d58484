"""To check a password is slow: many wrong ones of one name do not keep others out. The file of users loses nobody."""

import base64
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio
import trio.testing

from api.asgi import Refusal
from api.moviemasher.users import WAITING, Users, read_users, write_user
from engine.config import Settings
from tests.waiting import until


@pytest.fixture
def users(tmp_path):
    path = tmp_path / "users.json"
    for name in ("ada", "bob"):
        write_user(path, name, "right")
    return Users(Settings(users=str(path)))


class Login:
    """A request in somebody's name; `answer` is the user, or the refusal."""

    def __init__(self, name, password):
        self.header = "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()
        self.answer = None

    async def run(self, users):
        try:
            self.answer = await users.of(self.header)
        except Refusal as err:
            self.answer = err


async def begin(nursery, users, *logins):
    for login in logins:
        nursery.start_soon(login.run, users)
    await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize("name", ["ada", "eve"])  # who is there and who is not wait alike
async def test_passwords_of_one_name_wait_for_each_other_and_not_all_others_for_them(users, nursery, name):
    async with users._limiter:  # nothing is checked
        wrong = [Login(name, str(n)) for n in range(WAITING + 1)]
        bob, more = Login("bob", "right"), Login(name, "right")
        await begin(nursery, users, *wrong)
        await begin(nursery, users, bob, more)
        assert (more.answer.status, dict(more.answer.headers)) == (429, {"Retry-After": "5"})
        assert users._limiter.statistics().tasks_waiting == 2
    await until(lambda: bob.answer is not None)
    assert bob.answer == "bob"
    assert sum(each.answer is not None for each in wrong) < 5
    nursery.cancel_scope.cancel()


async def test_many_first_requests_of_a_page_are_one_check(users, nursery):
    asked = [Login("ada", "right") for _ in range(WAITING)]

    async def check_nothing_more():
        async with users._limiter:
            await until(lambda: all(each.answer == "ada" for each in asked))

    async with users._limiter:
        await begin(nursery, users, *asked)
        nursery.start_soon(check_nothing_more)
        await trio.testing.wait_all_tasks_blocked()
        assert users._limiter.statistics().tasks_waiting == 2
    await until(lambda: all(each.answer == "ada" for each in asked))


def test_of_users_that_are_put_into_a_file_at_once_each_is_there(tmp_path):
    path = tmp_path / "users.json"
    names = [f"user{n}" for n in range(16)]
    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(lambda name: write_user(path, name, "right"), names))
    assert sorted(read_users(path)) == sorted(names)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_users_keeps_its_owner_and_its_mode_and_a_link_to_it_stays_one(tmp_path):
    path, link = tmp_path / "users.json", tmp_path / "link.json"
    write_user(path, "ada", "right")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12346)
    link.symlink_to(path)
    before = path.stat()
    write_user(link, "bob", "right")
    after = path.stat()
    assert read_users(path).keys() == {"ada", "bob"}
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert link.is_symlink()
