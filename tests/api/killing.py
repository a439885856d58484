"""Kills a process that changes jobs at a random moment, again and again, and looks at what is left.

Run as a program: ``python killing.py FOLDER TRIALS SEED``. Each trial is a fork that tells every change in a line as
soon as the store has answered it; the parent kills it, opens the database and compares. Prints what it has seen.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from api.store import Store
from engine.jobdocument import read
from engine.jobs import Rules
from tests.api.auditing import audit, created, new_database

BODY = read(
    b'{"template":{"src":"file:///a.aepx","composition":"main"},"maxAttempts":3,"webhooks":[{"url":"http://x"}]}'
)
NOW = 1_700_000_000_000
NEW, GONE = "", "removed"


def change(path, chance, told):
    """The child: creates, picks, reports, finishes, removes, until it is killed."""
    store = Store(path, rules=Rules())
    told("ready")
    held = []
    while True:
        step = chance.choice(["create", "create", "pick", "report", "finish", "remove"])
        if step == "create":
            uid = f"{os.getpid()}-{chance.randrange(10**9)}"
            created(store, [BODY | read(b'{"uid":"%s"}' % uid.encode())], now=NOW)
            told(f"{uid} queued")
        elif step == "pick":
            picked, _ = store.pick("w", now=NOW)
            if picked is not None:
                held.append(picked)
                told(f"{picked.uid} picked")
        elif held:
            picked = held[-1] if step == "report" else held.pop(chance.randrange(len(held)))
            if step == "remove":
                store.remove(picked.uid, now=NOW)
                told(f"{picked.uid} removed")
            else:
                state = "finished" if step == "finish" else "render:dorender"
                store.put(picked.uid, read(b'{"state":"%s"}' % state.encode()), now=NOW, run=picked.run)
                told(f"{picked.uid} {state}")


def trial(path, seed, seconds):
    """What one child has told until it was killed, in order."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            change(path, random.Random(seed), lambda line: os.write(sending, line.encode() + b"\n"))
        finally:
            os._exit(1)
    os.close(sending)
    os.read(receiving, len(b"ready\n"))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(receiving, "rb") as pipe:
        return pipe.read().decode().splitlines()


def main(folder, trials, seed):
    """Raises AssertionError when an answered change is lost."""
    chance = random.Random(seed)
    path = Path(folder) / "jobs.db"
    new_database(path)
    expected, changes = {}, 0
    for number in range(trials):
        lines = trial(path, chance.random(), chance.uniform(0, 0.05))
        expected |= dict(line.rsplit(" ", 1) for line in lines)
        changes += len(lines)
        store = Store(path, rules=Rules())
        found = audit(store)
        store.close()
        # One change may have been done without being told.
        other = [uid for uid in {*expected, *found} if found.get(uid, GONE) != expected.get(uid, GONE)]
        assert len(other) <= 1, (number, other)
        assert all(follows(found.get(uid, GONE), expected.get(uid, NEW)) for uid in other), (number, other)
        expected = {uid: found.get(uid, GONE) for uid in {*expected, *found}}
    print(f"{trials} trials, {changes} changes told, {len(expected)} jobs")


def follows(there, told):
    """Whether a state can be reached from another by one step."""
    order = [NEW, "queued", "picked", "render:dorender", "finished", GONE]
    return order.index(there) > order.index(told)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
