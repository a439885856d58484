"""Health on a real engine: whether it serves, its state, its news as server-sent events, its figures for Prometheus."""

import json

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from api import health
from api.app import create_app
from engine import Engine, EventSpec, MixerSpec, PullSpec, Raster, Settings
from tests.api.clients import followed
from tests.threads import no_threads

PATTERN = PullSpec(pattern="count?size=64x36&rate=25")
EVENT = EventSpec(name="show", path="live", stream_name="mix", mixer=MixerSpec(raster=Raster(64, 36)), sub_mixes=2)


@pytest.fixture
async def engine(tmp_path, nursery):
    made = Engine(Settings(data=str(tmp_path), rtmp_port=-1), strict=True)
    await nursery.start(made.run)
    return made


@pytest.fixture
def client(engine):
    return create_app(engine).test_client()


async def test_who_asks_while_there_is_no_thread_waits_or_is_told_to_come_again(client, monkeypatch):
    answers = []

    async def ask():
        answers.append(await client.get("/metrics"))

    async with trio.open_nursery() as nursery, no_threads():
        nursery.start_soon(ask)
        await trio.sleep(0.1)
        assert not answers
    assert answers[0].status_code == 200
    monkeypatch.setattr("engine.threads.PATIENCE", 0.05)
    async with no_threads():
        refused = await client.get("/metrics")
    assert (refused.status_code, await refused.get_json()) == (503, {"error": "no thread to be had"})


async def published(engine, name):
    """Until a stream has packets of both kinds."""
    while not any(s.name == name and s.video and s.audio for s in engine.streams()):
        await trio.sleep(0.01)


class Messages:
    """The messages of an event stream, one after the other."""

    def __init__(self, connection):
        self._connection = connection
        self._text = ""

    async def next(self):
        """(event, data) of a message; (None, text) of a comment."""
        while "\n\n" not in self._text:
            self._text += (await self._connection.receive()).decode()
        message, _, self._text = self._text.partition("\n\n")
        if message.startswith("retry: "):
            assert int(message.removeprefix("retry: ")) > 0
            return await self.next()
        if message.startswith(":"):
            return None, message[1:].strip()
        event, data = message.split("\n")
        assert event.startswith("event: ")
        assert data.startswith("data: ")
        return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def test_a_client_that_has_gone_by_now_leaves_nothing_behind(engine):
    with trio.CancelScope() as gone:
        gone.cancel()
        async with health.NewsBody(engine, status_every=None):
            pytest.fail("it has not gone")
    assert gone.cancelled_caught


async def test_health(client, engine):
    answer = await client.get("/healthz")
    assert answer.status_code == 200
    assert (await answer.get_json())["status"] == "ok"
    assert (await client.head("/healthz")).status_code == 200


async def test_while_it_stops_it_says_so(client, engine):
    with trio.fail_after(30):
        await engine.close()
        answer = await client.get("/healthz")
        assert answer.status_code == 503
        assert (await answer.get_json())["status"] == "stopping"
        async with client.request("/events") as connection:  # ends by itself
            pass
        assert connection.status_code == 200


async def test_status_has_everything(client, engine):
    with trio.fail_after(30):
        await engine.put_source("live/cam", PATTERN)
        await engine.create_event(EVENT)
        await published(engine, "live/cam")
        await published(engine, "live/mix")
        told = await (await client.get("/status")).get_json()
    assert [each["name"] for each in told["streams"]] == ["live/cam", "live/mix", "live/mix_1"]
    assert told["streams"][0]["video"]["width"] == 64
    assert told["pulls"][0]["name"] == "live/cam"
    assert [mix["stream"] for mix in told["events"][0]["subMixes"]] == ["live/mix", "live/mix_1"]
    assert told["recordings"] == told["pushes"] == []


async def test_news_begin_with_the_state_of_everything(client, engine):
    with trio.fail_after(30):
        await engine.put_source("live/cam", PATTERN)
        await published(engine, "live/cam")
        async with followed(client, "/events") as connection:
            messages = Messages(connection)
            event, state = await messages.next()
            assert connection.status_code == 200
            assert connection.headers["Content-Type"] == "text/event-stream"
            assert connection.headers["Cache-Control"] == "no-store"
            assert event == "status"
            assert [each["name"] for each in state["streams"]] == ["live/cam"]
            await engine.put_source("live/other", PATTERN)
            event, news = await messages.next()
            assert event == "stream"
            assert news == {"subject": "stream", "id": "live/other", "state": "published", "stream": "", "error": ""}
        while engine._news:
            await trio.sleep(0.01)


async def test_what_changes_after_the_first_state_is_told_even_when_nobody_reads_yet(client, engine):
    with trio.fail_after(30):
        async with followed(client, "/events") as connection:
            while not engine._news:  # the headers come a little before
                await trio.sleep(0.01)
            await engine.create_event(EVENT)
            messages = Messages(connection)
            await messages.next()
            told = set()
            while ("event", "show") not in told:
                _, news = await messages.next()
                told.add((news["subject"], news["id"]))


async def test_the_state_again_and_again(client, engine):
    with trio.fail_after(30):
        async with followed(client, "/events?status=100") as connection:
            messages = Messages(connection)
            told = [await messages.next() for _ in range(3)]
    assert [event for event, _ in told] == ["status"] * 3
    uptimes = [state["uptimeMs"] for _, state in told]
    assert uptimes == sorted(set(uptimes))


async def test_a_comment_where_nothing_happens(client, engine, monkeypatch):
    monkeypatch.setattr(health, "COMMENT_EVERY", 0.02)
    with trio.fail_after(30):
        async with followed(client, "/events") as connection:
            messages = Messages(connection)
            assert (await messages.next())[0] == "status"
            assert await messages.next() == (None, "still here")
            assert await messages.next() == (None, "still here")


@pytest.mark.parametrize("every", ["0", "99", "-1", "x", "1e3", "%C2%B2", "9" * 30])
async def test_a_wrong_interval(client, engine, every):
    answer = await client.get(f"/events?status={every}")
    assert answer.status_code == 400
    assert "status" in (await answer.get_json())["error"]


async def test_head_of_what_has_no_end(client, engine):
    with trio.fail_after(30):
        answer = await client.head("/events")
    assert answer.status_code == 200
    assert answer.content_type == "text/event-stream"


async def figures(client):
    """{(sample, labels): value} and {family: type}."""
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(await answer.get_data(as_text=True)))
    samples = {(s.name, frozenset(s.labels.items())): s.value for each in families for s in each.samples}
    return samples, {each.name: each.type for each in families}


async def test_figures_of_a_quiet_engine(client, engine):
    samples, kinds = await figures(client)
    assert samples["mashtun_uptime_seconds", frozenset()] > 0
    assert kinds["mashtun_uptime_seconds"] == "gauge"
    assert kinds["process_cpu_seconds"] == "counter"
    assert not [name for name in kinds if name.startswith("mashtun_") and name != "mashtun_uptime_seconds"]


async def test_figures_of_streams_mixers_and_encoders(client, engine):
    def of(name, **labels):
        return samples[name, frozenset(labels.items())]

    with trio.fail_after(30):
        await engine.put_source("live/cam", PATTERN)
        await engine.create_event(EVENT)
        await published(engine, "live/cam")
        await published(engine, "live/mix")
        samples, kinds = await figures(client)
    assert of("mashtun_stream_packets_total", stream="live/cam", kind="video") > 0
    assert of("mashtun_stream_bytes_total", stream="live/cam", kind="audio") > 0
    assert of("mashtun_stream_age_seconds", stream="live/cam") < 5
    assert of("mashtun_stream_publications_total", stream="live/mix") == 1
    assert of("mashtun_event_state", event="show", state="on air") == 1
    for stream in ("live/mix", "live/mix_1"):
        assert of("mashtun_mixer_lagged_total", event="show", stream=stream) >= 0
        assert of("mashtun_encoder_encode_seconds", event="show", stream=stream) < 1
        assert of("mashtun_encoder_skipped_total", event="show", stream=stream) >= 0
    assert of("mashtun_pull_retries_total", stream="live/cam") == 0
    for name, kind in kinds.items():
        totals = {sample for sample, _ in samples if sample == f"{name}_total"}
        assert (kind == "counter") == bool(totals), name


async def test_figures_of_queues_and_of_what_they_lose(client, engine):
    with trio.fail_after(30):
        await engine.put_source("live/cam", PATTERN)
        await published(engine, "live/cam")
        push = await engine.add_push("live/cam", "rtmp://127.0.0.1:1/app/name")
        recording = await engine.start_recording("live/cam")
        with engine._hub.read("live/cam") as idle:
            while idle.waiting < 20:
                await trio.sleep(0.01)
            samples, kinds = await figures(client)
    assert samples["mashtun_stream_waiting", frozenset({("stream", "live/cam")})] >= 20
    sinks = {
        "push": frozenset({("stream", "live/cam"), ("id", push.id)}),
        "recording": frozenset({("stream", "live/cam"), ("id", recording.id)}),
    }
    for sink, labels in sinks.items():
        assert 0 <= samples[f"mashtun_{sink}_waiting", labels] < 20
        assert samples[f"mashtun_{sink}_dropped_total", labels] == 0
        assert kinds[f"mashtun_{sink}_waiting"] == "gauge"


async def test_a_name_cannot_break_the_figures(client, engine):
    name = "live/a\"b\u2028{}'ü"
    with trio.fail_after(30):
        await engine.put_source(name, PATTERN)
        await published(engine, name)
        samples, _ = await figures(client)
        state = await (await client.get("/status")).get_json()
    assert ("mashtun_stream_readers", frozenset({("stream", name)})) in samples
    assert state["streams"][0]["name"] == name
