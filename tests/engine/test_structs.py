"""What several threads decode at once, the first time in a process, does not end it."""

import subprocess
import sys

import pytest

# Each thread stops for a moment in whatever msgspec does in Python to know a struct.
THREADS = """
import importlib, sys, threading, time
import msgspec

def stop(frame, event, _):
    if event == "call" and "msgspec" in frame.f_code.co_filename:
        time.sleep(0.02)

def decode():
    for _ in range(20):
        msgspec.json.decode(sys.argv[3], type=kind, strict=False)
        time.sleep(0.003)

kind = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
threading.setprofile(stop)
threads = [threading.Thread(target=decode) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("whole")
"""
TREE = """{
    "rootVideoNode": {"node": "CompositorNode", "nodes": [{"node": "VideoSourceNode", "streamGuid": "a"}]},
    "rootAudioNode": {"node": "SumNode", "nodes": []}
}"""


@pytest.mark.parametrize(
    ("module", "name", "document"),
    [
        ("engine.tree", "RenderTree", TREE),
        ("engine.template", "Asset", '{"type": "image", "params": {"headers": {}}}'),
        ("api.moviemasher.rendering", "Told", '{"template": {"src": ""}, "state": "queued"}'),
    ],
)
def test_threads_may_decode_it_the_first_time_together(module, name, document):
    argv = [sys.executable, "-c", THREADS, module, name, document]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr[-1000:]
