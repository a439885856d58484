"""Arguments become a spec, progress becomes a line, and every error one line and an exit code."""

import json
from fractions import Fraction

import av
import pytest

from engine import command
from engine.command import main
from engine.offline import Progress, Rendered
from engine.spec import EncoderSpec, MixerSpec, Raster, RenderSpec
from tests.media import Video, encode, numbers

SPEC = RenderSpec(output="film.mp4", mixer=MixerSpec(raster=Raster(64, 36), fps=Fraction(25)))
RED = '{"rootVideoNode": {"node": "SolidColorNode", "red": 1}}'


@pytest.fixture
def scene(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scene.json").write_text(RED)
    return tmp_path


@pytest.fixture
def asked(scene, monkeypatch):
    """A function: arguments → (program, spec, settings) as they reach the render."""
    found = []
    monkeypatch.setattr(command, "_run", lambda renders, settings, _: found.append((*renders[0], settings)) or 0)

    def ask(*arguments, document="scene.json"):
        assert main([document, "out.mp4", *arguments]) == 0
        return found.pop()

    return ask


def packets(path):
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def test_without_options_a_spec_is_the_default_one(asked):
    _, spec, settings = asked()
    assert spec == RenderSpec(output="out.mp4", images=".", mixer=MixerSpec(raster=Raster(1280, 720)))
    assert (settings.open_timeout, settings.read_timeout, settings.composite_threads) == (10, 10, 1)


def test_every_option_reaches_the_spec(asked):
    mix = "--size 641x361 --scale 321x181 --fps 29.97 --start 1.5 --duration 1/3 --audio-rate 44100 --channels 1"
    code = "--preset slow --bit-rate 2000000 --max-bit-rate 3000000 --qp-min 1 --qp-max 50 --gop 9 --profile main"
    rest = "--audio-bit-rate 96000 --threads 2 --timeout 2.5 --on-error hold --images art"
    sources = "--source a=b.mp4 --source c=http://x/?q=1"
    _, spec, settings = asked(*f"{mix} {code} {rest} {sources}".split())
    assert (spec.mixer.raster, spec.scale) == (Raster(640, 360), Raster(320, 180))
    assert spec.mixer.fps == Fraction(30_000, 1001)
    assert (spec.mixer.audio.rate, spec.mixer.audio.channels) == (44_100, 1)
    assert (spec.start, spec.duration) == (Fraction(3, 2), Fraction(1, 3))
    assert spec.encoder == EncoderSpec(
        preset="slow",
        bit_rate=2_000_000,
        max_bit_rate=3_000_000,
        qp_min=1,
        qp_max=50,
        gop=9,
        profile="main",
        audio_bit_rate=96_000,
    )
    assert spec.sources == {"a": "b.mp4", "c": "http://x/?q=1"}
    assert (spec.images, spec.on_error) == ("art", "hold")
    assert (settings.open_timeout, settings.composite_threads) == (2.5, 2)


@pytest.mark.parametrize(("limit", "duration"), [("2", "1.5"), ("0.5", "0.5")])
def test_a_limit_makes_a_duration_only_shorter(asked, limit, duration):
    assert asked("--duration", "1.5", "--limit", limit)[1].length == Fraction(duration)
    spec = asked("--limit", limit)[1]
    assert (spec.length, spec.limit) == (None, Fraction(limit))


def test_a_limit_beyond_what_a_render_may_have_is_as_good_as_that(asked):
    assert asked("--limit", "999999")[1].limit == 604800


def test_a_film_alone_is_copied_where_the_output_is_scaled_to_its_size(scene):
    film = encode(scene / "film.mp4", Video(matrix="bt709"), seconds=1)
    group = {"node": "CompositorNode", "nodes": [{"node": "VideoSourceNode", "streamGuid": "film.mp4"}]}
    (scene / "scene.json").write_text(json.dumps({"rootVideoNode": group}))
    assert main(["scene.json", "out.mp4", "--scale", "64x36", "--duration", "1"]) == 0
    assert packets("out.mp4") == packets(film)


@pytest.mark.parametrize(
    ("nodes", "scale", "is_mixed_so"),
    [
        ([{}], "1920x1080", True),
        ([{"destX": 0, "sourceY": 0}], "640x480", True),
        ([{"fit": "contain"}], "640x360", True),
        ([{"fit": "contain"}], "640x480", False),
        ([{"destWidth": 1280}], "640x360", False),
        ([{"destWidth": 640, "destHeight": 360}], "640x360", False),
        ([{"effects": [{"effect": "grayscale"}]}], "640x360", False),
        ([{"streamGuid": "below"}, {}], "640x360", False),
    ],
)
def test_only_a_film_alone_over_the_whole_frame_is_mixed_as_it_is_scaled(scene, asked, nodes, scale, is_mixed_so):
    films = [{"node": "VideoSourceNode", "streamGuid": "film", **node} for node in nodes]
    (scene / "scene.json").write_text(json.dumps({"rootVideoNode": {"node": "CompositorNode", "nodes": films}}))
    spec = asked("--scale", scale)[1]
    wanted = Raster.parse(scale)
    assert (spec.mixer.raster, spec.scale) == ((wanted, None) if is_mixed_so else (Raster(1280, 720), wanted))


def test_images_are_looked_for_beside_the_document(scene, asked):
    assert asked()[1].images == "."
    (scene / "project").mkdir()
    (scene / "project" / "other.json").write_text(RED)
    assert asked("--progress", "none", document="project/other.json")[1].images == "project"


@pytest.mark.parametrize(
    "seconds", ["1", "0.04", ".5", "7.", "1001/30000", "604800", "3.3333333333333335", "12270270367/3000000000"]
)
def test_seconds_are_exact(asked, seconds):
    assert asked("--duration", seconds)[1].duration == Fraction(seconds)


@pytest.mark.parametrize("seconds", ["", "-", "1e3", "nan", "inf", "1/0", "0x1", "1 2", "٣", "9" * 20, "1_0"])
def test_what_are_no_seconds(scene, capsys, seconds):
    with pytest.raises(SystemExit) as caught:
        main(["scene.json", "out.mp4", f"--duration={seconds}"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == (f'mashtun render: argument --duration: "{seconds}" is not a number of seconds\n')


@pytest.mark.parametrize("size", ["", "x", "1x", "x1", "1x2x3", "-1x2", "1 x2", "1_0x20", "9" * 5000 + "x2"])
def test_what_is_no_size(scene, capsys, size):
    with pytest.raises(SystemExit) as caught:
        main(["scene.json", "out.mp4", f"--size={size}"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith('" is not WIDTHxHEIGHT\n')


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "3601"])
def test_what_is_no_timeout(scene, capsys, value):
    assert main(["scene.json", "out.mp4", "--timeout", value]) == 2
    assert capsys.readouterr().err == f"mashtun: timeout {float(value):g} s is not more than 0 and at most 3600\n"


def test_a_sentence_is_one_line_whatever_is_in_it(scene, capsys):
    assert main(["no\nsuch\x1b[31m\udcff.json", "out.mp4"]) == 1
    assert capsys.readouterr().err == 'mashtun: document "no\\nsuch\\x1b[31m\\udcff.json": no such file or directory\n'


def test_a_film_of_a_colour(scene, capsys):
    assert main(["scene.json", "out.mp4", "--size", "64x36", "--duration", "0.1", "--progress", "json"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out.splitlines()[-1]) | {"elapsed": 0} == {"done": 3, "total": 3, "elapsed": 0}
    assert len(numbers(scene / "out.mp4")) == 3


@pytest.mark.parametrize(
    ("out", "sentence"),
    [("out.mp4", ""), ("out.avi", 'mashtun: output "out.avi": extension ".avi" is not one of')],
)
def test_a_check_tells_what_is_refused_and_renders_nothing(scene, capsys, out, sentence):
    assert main(["scene.json", out, "--duration", "1", "--check"]) == bool(sentence)
    told = capsys.readouterr()
    assert told.err.startswith(sentence)
    assert bool(told.err) == bool(sentence)
    assert [each.name for each in scene.iterdir()] == ["scene.json"]


@pytest.mark.parametrize("out", ["film.mp4", "link.mp4"])
def test_what_is_mixed_is_not_replaced_by_the_mix(media, tmp_path, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    film, link = tmp_path / "film.mp4", tmp_path / "link.mp4"
    film.write_bytes(media.path("plain").read_bytes())
    link.symlink_to(film)
    (tmp_path / "tree.json").write_text('{"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "film.mp4"}}')
    for arguments in ([], ["--check"]):
        assert main(["tree.json", out, "--size", "64x36", *arguments]) == 1
        assert capsys.readouterr().err == f'mashtun: output "{out}": it is the file of source "film.mp4"\n'
    assert film.read_bytes() == media.path("plain").read_bytes()


@pytest.mark.parametrize(("out", "code"), [("%03d.png", 1), ("s%03d.png", 0)])
def test_an_image_is_not_replaced_by_one_of_many_pictures(tmp_path, monkeypatch, capsys, out, code):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "red.json").write_text('{"rootVideoNode": {"node": "SolidColorNode", "red": 1}}')
    assert main(["red.json", "002.png", "--size", "64x36"]) == 0
    was = (tmp_path / "002.png").read_bytes()
    (tmp_path / "tree.json").write_text('{"rootVideoNode": {"node": "ImageSourceNode", "filename": "002.png"}}')
    capsys.readouterr()
    assert main(["tree.json", out, "--size", "32x18", "--duration", "0.1"]) == code
    assert (f'output "{out}": it is the file of source "002.png"' in capsys.readouterr().err) == bool(code)
    assert (tmp_path / "002.png").read_bytes() == was


def test_a_check_of_a_film_as_long_as_its_sources_tells_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.json").write_text('{"rootVideoNode": {"node": "VideoSourceNode", "streamGuid": "gone.mp4"}}')
    assert main(["a.json", "out.mp4", "--check"]) == 1
    assert capsys.readouterr().err.startswith('mashtun: source "gone.mp4": no such file')


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress(0, 100, 0.2), "░" * 30 + "   0%  0/100 frames  0.00×"),
        (Progress(50, 100, 1.0), "█" * 15 + "░" * 15 + "  50%  50/100 frames  2.00×  ETA 1 s"),
        (Progress(100, 100, 8.0), "█" * 30 + " 100%  100/100 frames  0.50×"),
        (Progress(0, 0, 0.0), "█" * 30 + " 100%  0/0 frames  "),
        (Progress(75, None, 1.5), "75 frames  2.00×"),
    ],
    ids=str,
)
def test_the_bar(progress, line, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    command._Bar(SPEC).report(progress)
    assert capsys.readouterr().err == f"\r\x1b[K{line}"


def test_the_bar_fits_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    command._Bar(SPEC).report(Progress(50, 100, 1.0))
    assert len(capsys.readouterr().err.removeprefix("\r\x1b[K")) == 39


def test_the_bar_ends_with_a_summary_once(capsys):
    bar = command._Bar(SPEC)
    bar.report(Progress(50, 50, 1.0))
    bar.close(Rendered("film.mp4", 50, 1.0, 7))
    bar.close()
    assert capsys.readouterr().err.endswith("\nfilm.mp4: 2.00 s in 1.00 s, 7 samples clipped\n")


def test_a_bar_that_never_began_says_nothing(capsys):
    command._Bar(SPEC).close()
    assert capsys.readouterr().err == ""


def test_progress_as_lines_of_json(capsys):
    command._Lines().report(Progress(3, None, 0.12345))
    assert capsys.readouterr().out == '{"done":3,"total":null,"elapsed":0.123}\n'


def test_interrupted_before_it_began(scene, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "read_document", interrupt)
    assert main(["scene.json", "out.mp4"]) == 130
