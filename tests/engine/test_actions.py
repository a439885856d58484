"""The well-known modules are understood before anything is rendered; all others are refused then."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import trio

import engine.sinks.partial
from engine.actions import PHASES, Actions, Film
from engine.errors import InvalidJob, SinkError
from engine.fetch import Fetcher
from engine.template import read_order
from tests.web import WebRequest, web_server

MODULE = "@nexrender/action-"


def actions_of(folder, *listed, phase="postrender", writable=(), uid="u", private=False, **template):
    """(actions, order) of a job with these actions in one phase."""
    job = {"uid": uid, "template": {"src": "x.json", "composition": "*"} | template, "actions": {phase: list(listed)}}
    order = read_order(job)
    fetcher = Fetcher(base=folder, cache=folder / "cache", allow_private=private)
    return Actions(job, order, folder=folder / "out", fetcher=fetcher, writable=writable), order


def action(name, **given):
    return {"module": MODULE + name, **given}


def films_of(folder, *listed, **template):
    actions, order = actions_of(folder, *listed, **template)
    return actions.films(order)


def test_without_an_encode_action_the_film_is_the_result(tmp_path):
    assert films_of(tmp_path, frameRate=10) == [Film("result.mp4", {"--fps": "10"})]
    assert films_of(tmp_path, action("webhook", url="http://x"), outputExt=".MOV") == [Film("result.mov", {})]


def test_an_encode_action_is_what_is_rendered(tmp_path):
    params = {"-vcodec": "libx264", "-r": 29.97, "-t": "1.5", "-b:v": "2.5M", "-ab": "96k", "-crf": 30}
    (film,) = films_of(tmp_path, action("encode", preset="mp4", output="a/foo.mp4", params=params), frameRate=10)
    assert film.name == "foo.mp4"
    assert film.options == {
        "--fps": "29.97",
        "--limit": "1.5",
        "--audio-rate": "44100",
        "--audio-bit-rate": "96000",
        "--bit-rate": "2500000",
        "--quality": "30",
    }
    webhook, encode = action("webhook", url="http://x"), action("encode", output="two")
    assert [film.name for film in films_of(tmp_path, webhook, encode)] == ["two.mp4"]


@pytest.mark.parametrize(
    ("preset", "encoded"),
    [  # -ab -ar -b -r of @nexrender/action-encode; Opus has no 44100 Hz
        ("mp4", {"--audio-bit-rate": "128000", "--audio-rate": "44100", "--fps": "25"}),
        ("webm", {"--audio-bit-rate": "128000", "--audio-rate": "48000", "--bit-rate": "614400"}),
        ("mp3", {"--audio-bit-rate": "128000", "--audio-rate": "44100"}),
        ("m4a", {"--audio-bit-rate": "64000", "--audio-rate": "44100"}),
    ],
)
def test_presets_are_nexrenders(tmp_path, preset, encoded):
    assert films_of(tmp_path, action("encode", preset=preset)) == [Film(f"encoded.{preset}", encoded)]


@pytest.mark.parametrize(
    ("preset", "template", "params", "kept"),
    [
        ("webm", {}, {"-crf": 24}, {"--quality": "24"}),
        ("webm", {"quality": 24}, {}, {"--quality": "24"}),
        ("webm", {"quality": 24}, {"-b:v": "300k"}, {"--bit-rate": "300000"}),
        (None, {"bitRate": 2000, "maxBitRate": 3000}, {"-crf": 24, "-b:v": 0}, {"--quality": "24"}),
        ("webm", {}, {"-maxrate": "1M"}, {"--bit-rate": "614400", "--max-bit-rate": "1000000"}),
    ],
)
def test_a_quality_and_a_bit_rate_take_each_other_s_place(tmp_path, preset, template, params, kept):
    """What an action says goes over the template, and that over the preset; in one film there is one of the two."""
    (film,) = films_of(tmp_path, action("encode", preset=preset, params=params), **template)
    assert {option: film.options[option] for option in film.options if not option.startswith("--audio")} == kept


def test_the_result_is_rendered_where_an_action_names_it(tmp_path):
    encode, copy = action("encode", output="small.mp4"), action("copy", input="result.mp4", output="master.mp4")
    assert [film.name for film in films_of(tmp_path, encode, copy)] == ["result.mp4", "small.mp4"]
    assert [film.name for film in films_of(tmp_path, encode, copy | {"input": "small.mp4"})] == ["small.mp4"]
    assert [film.name for film in films_of(tmp_path, encode | {"output": "result.mp4"}, copy)] == ["result.mp4"]


@pytest.mark.parametrize("module", [{"output": "master.mp4"}, {"provider": "file", "params": {"path": "master.mp4"}}])
def test_an_action_without_an_input_takes_the_result(tmp_path, module):
    encode, taking = action("encode", output="small.mp4"), action("upload" if "params" in module else "copy", **module)
    assert [film.name for film in films_of(tmp_path, encode, taking)] == ["result.mp4", "small.mp4"]
    both = encode | {"output": "result.mp4"}, encode
    assert [film.name for film in films_of(tmp_path, *both, taking)] == ["result.mp4", "small.mp4"]


def test_without_the_result_the_film_that_is_encoded_last_is_the_first_of_all(tmp_path):
    films = films_of(tmp_path, *(action("encode", output=name) for name in ("a.mp4", "b.mp4", "c.mp4")))
    assert [film.name for film in films] == ["c.mp4", "a.mp4", "b.mp4"]


@pytest.mark.parametrize(
    ("inputs", "is_there"),
    [
        (["small.mp4", "", "copies/small.mp4"], True),
        (["small.mp4", "1.mp4"], True),
        (["1.mp4"], False),
        (["result.mov"], False),
        (["other.mp4"], False),
    ],
)
def test_an_input_is_a_film_or_an_earlier_copy(tmp_path, inputs, is_there):
    copies = [action("copy", input=name, output=f"{n}.mp4") for n, name in enumerate(inputs, 1)]
    actions, order = actions_of(tmp_path, action("encode", output="small.mp4"), *copies)
    with nullcontext() if is_there else pytest.raises(InvalidJob, match=f'"{inputs[0]}" is not an output of this job'):
        actions.check_inputs(actions.films(order))


def test_an_input_is_a_copy_under_the_name_of_its_job_too(tmp_path):
    copies = [action("copy", output="./", useJobId=True), action("copy", input="4n42.mp4", output="more.mp4")]
    actions, order = actions_of(tmp_path, *copies, uid="4n42")
    actions.check_inputs(actions.films(order))


@pytest.mark.parametrize("output", ["映" * 75 + ".mp4", "x" * 200, "." + "x" * 300])
def test_a_long_name_keeps_its_end_and_has_room_for_the_extension(tmp_path, output):
    (film,) = films_of(tmp_path, action("encode", output=output))
    assert film.name.endswith(".mp4")
    assert 190 < len(film.name.encode()) <= 200


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (action("copy", output="more/" + "x" * 201), "is no path of an output"),
        ({"module": "left-pad"}, "'left-pad' is not one of"),
        ({"module": "copy", "output": "x"}, "'copy' is not one of"),
        ({}, "module"),
        ("copy", "module"),
        (action("lottie"), "is not one of"),
        (action("encode", preset="ogg"), "preset 'ogg' is not one of mp4"),
        (action("encode", params={"-filter_complex": "x"}), "-filter_complex x is not supported"),
        (action("encode", params={"-vcodec": "prores"}), "-vcodec prores is not supported"),
        (action("encode", params="-r 5"), "params is not an object"),
        (action("encode", input="other.mov"), "only what is rendered"),
        (action("encode", output="result.mp4"), None),
        (action("encode", output="100%d.mp4"), None),
        (action("encode", output="f-%03d.png"), "output: many images are not supported"),
        (action("encode", output="/srv/%d.JPG"), "output: many images are not supported"),
        (action("encode", output="/etc/cron.d/x.mp4"), 'output: "/etc/cron.d/x.mp4" may not be written to'),
        (action("copy"), "output is missing"),
        (action("copy", output="/etc/cron.d/x"), "may not be written to"),
        (action("copy", output="../../x"), "may not be written to"),
        (action("copy", output="file:///etc/x"), "may not be written to"),
        (action("copy", output="s3://bucket/x"), 'output: "s3://bucket/x" is neither a path nor a file: URL of this m'),
        (action("copy", output="http://u:p@h/x?key=1"), 'output: "http://h/x" is neither a path nor a file: URL of'),
        (action("copy", output="file://there/x"), 'output: "file://there/x" is neither a path nor a file: URL of'),
        (action("copy", output="a\0b"), "is no path"),
        (action("copy", output="file://[x/y"), "is neither a path nor a file: URL of this machine"),
        (action("copy", output="../ring/x"), "is no path|may not be written to"),  # since Python 3.13 the latter
        (action("upload", provider="http", params={"url": "http://[x"}), "params.url is not"),
        (action("upload"), "provider 'None' is not one of"),
        (action("upload", provider="s3", params={}), "provider 's3' is not one of"),
        (action("upload", provider="file", params={"path": "/x"}), "may not be written to"),
        (action("upload", provider="http", params={"url": "ftp://x"}), "params.url is not"),
        (action("webhook"), "url is missing"),
    ],
)
def test_what_no_module_does(tmp_path, given, sentence):
    (tmp_path / "ring").symlink_to("ring")
    if sentence is None:
        actions_of(tmp_path, given)
        return
    with pytest.raises(InvalidJob, match=sentence.replace(".", r"\.")):
        actions_of(tmp_path, given)


def test_modules_have_their_phases(tmp_path):
    with pytest.raises(InvalidJob, match="only for postrender"):
        actions_of(tmp_path, action("copy", output="x"), phase="prerender")
    actions_of(tmp_path, action("cache", cacheDirectory="~/x"), action("webhook", url="x"), phase="predownload")


@pytest.mark.parametrize("phase", PHASES)
async def test_a_cache_is_there_anyway_in_every_phase(tmp_path, phase):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.mp4").write_bytes(b"film")
    output = tmp_path / "out" / "result.mp4" if phase == "postrender" else None
    actions, _ = actions_of(tmp_path, action("cache", cacheDirectory="~/x"), phase=phase)
    await actions.run(phase, output)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["result.mp4"]


def test_two_films_of_one_name_are_refused(tmp_path):
    with pytest.raises(InvalidJob, match="same name"):
        films_of(tmp_path, action("encode"), action("encode"))


async def test_copies_go_where_they_may(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "result.mp4").write_bytes(b"film")
    (tmp_path / "there").mkdir()
    listed = [
        action("copy", output="sub/"),
        action("copy", output=str(tmp_path / "there")),
        action("upload", provider="file", params={"path": (tmp_path / "there/new/a.mp4").as_uri()}),
        action("copy", input="result.mp4", output="result.mp4"),
    ]
    actions, _ = actions_of(tmp_path, *listed, writable=[tmp_path / "there"])
    await actions.run("postrender", out / "result.mp4")
    for path in (out / "sub/result.mp4", tmp_path / "there/result.mp4", tmp_path / "there/new/a.mp4"):
        assert Path(path).read_bytes() == b"film"
    actions, _ = actions_of(tmp_path, action("copy", input="other.mp4", output="x.mp4"))
    with pytest.raises(InvalidJob, match=r'"other\.mp4" is not an output'):
        await actions.run("postrender", out / "result.mp4")


async def test_what_is_encoded_is_copied_to_its_output_where_that_is_a_whole_path(tmp_path):
    out, there = tmp_path / "out", tmp_path / "there"
    out.mkdir()
    (out / "small.mp4").write_bytes(b"film")
    actions, order = actions_of(tmp_path, action("encode", output=str(there / "small.mp4")), writable=[there])
    assert [film.name for film in actions.films(order)] == ["small.mp4"]
    await actions.run("postrender", out / "small.mp4")
    assert (there / "small.mp4").read_bytes() == b"film"


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "result.mp4"),
        ({"useJobId": False}, "result.mp4"),
        ({"useJobId": True}, "4n42.mp4"),
        ({"useJobId": 1, "input": "sound.tar.m4a"}, "4n42.m4a"),
        ({"useJobId": True, "output": "there/x.mp4"}, "x.mp4"),
    ],
)
async def test_a_copy_into_a_folder_may_have_the_name_of_its_job(tmp_path, given, name):
    out, there = tmp_path / "out", tmp_path / "there"
    for path in (out / "result.mp4", out / "sound.tar.m4a", there / "old.mp4"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"film")
    copy = action("copy", **{"output": "there", **given})
    copy["output"] = str(tmp_path / copy["output"])
    actions, _ = actions_of(tmp_path, copy, writable=[there], uid="4n42")
    await actions.run("postrender", out / "result.mp4")
    assert {path.name for path in there.iterdir()} == {"old.mp4", name}


async def test_copies_to_one_place_at_the_same_time_all_arrive_and_one_of_them_stays(tmp_path):
    films = [letter * (32 << 20) for letter in (b"a", b"b", b"c")]
    async with trio.open_nursery() as nursery:
        for n, film in enumerate(films):
            output = tmp_path / str(n) / "out" / "result.mp4"
            output.parent.mkdir(parents=True)
            output.write_bytes(film)
            copy = action("copy", output=str(tmp_path / "there" / "latest.mp4"))
            actions, _ = actions_of(tmp_path / str(n), copy, writable=[tmp_path / "there"])
            nursery.start_soon(actions.run, "postrender", output)
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["latest.mp4"]
    assert (tmp_path / "there" / "latest.mp4").read_bytes() in films


async def test_a_copy_that_cannot_be_made_is_a_sentence_and_leaves_nothing(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "result.mp4").write_bytes(b"film")
    (tmp_path / "there").write_bytes(b"no folder")
    actions, _ = actions_of(tmp_path, action("copy", output=str(tmp_path / "there" / "x.mp4")), writable=[tmp_path])
    with pytest.raises(SinkError, match=r'output ".*/there/x\.mp4": '):
        await actions.run("postrender", tmp_path / "out" / "result.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "there"]


async def test_a_copy_that_is_given_up_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(engine.sinks.partial, "PIECE", 1 << 10)
    film, there = tmp_path / "out" / "result.mp4", tmp_path / "there"
    for folder in (film.parent, there):
        folder.mkdir()
    film.write_bytes(bytes(16 << 20))
    actions, _ = actions_of(tmp_path, action("copy", output=str(there)), writable=[there])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(actions.run, "postrender", film)
        with trio.fail_after(30):
            while not list(there.iterdir()):
                await trio.sleep(0)
        nursery.cancel_scope.cancel()
    assert not list(there.iterdir())


class _Receiver(WebRequest):
    """Keeps what it is told."""

    def do_POST(self):
        self.server.told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()


async def test_a_webhook_is_told_what_stands_in_the_job(tmp_path):
    told = {
        "{job.uid}": "4n42",
        "{job.template.tags.1}": "b",
        "{job.actions.postrender.0.json.1.at}": "here",
        "{job.template.tags}": '["a","b"]',
        "{job.template.tags.2} {job.template.tags.-1} {job.template.tags.x} {job.uid.0}": "   ",
    }
    with web_server(_Receiver) as server:
        webhook = action("webhook", url=server.url, json=[list(told), {"at": "here"}])
        actions, _ = actions_of(tmp_path, webhook, uid="4n42", private=True, tags=["a", "b"])
        await actions.run("postrender")
    assert server.told[0] == list(told.values())
