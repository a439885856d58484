"""What several threads decode at once, the first time in a process, does not end it."""

import subprocess
import sys

import pytest

# One thread stops where a struct within the one that it decodes is looked at, and another one decodes that meanwhile.
THREADS = """
import importlib, sys, threading
import msgspec

kind = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
looked, inside, others = [], threading.Event(), threading.Event()

def stop(frame, event, _):
    if event == "call" and frame.f_code.co_name == "get_class_annotations":
        looked.append(frame)
        if len(looked) == 2:
            inside.set()
            others.wait(5)

def decode():
    msgspec.json.decode(sys.argv[3], type=kind, strict=False)

def first():
    decode()
    inside.set()

threading.setprofile(stop)
thread = threading.Thread(target=first)
thread.start()
inside.wait(5)
decode()
others.set()
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
