"""What a receiver of FLV is told: metadata and extradata before the packets they are for, nothing it cannot read."""

from fractions import Fraction

from engine.feed import Feed, metadata
from engine.packet import Packet, Track
from engine.rtmp import Metadata, flv
from engine.rtmp.session import Shared
from tests.engine.peers import ASC, AVCC, OPENING, SOUND_OPENING

VIDEO = Track(kind="video", codec="h264", extradata=AVCC, width=64, height=36)
AUDIO = Track(kind="audio", codec="aac", extradata=ASC, rate=48_000, channels=2)
MP2 = Track(kind="audio", codec="mp2", rate=48_000, channels=2)


def packet(track, dts=0, data=b"data"):
    return Packet(track, data, pts=dts, dts=dts, arrival=0)


def test_all_tracks_are_announced_before_the_first_packet():
    feed, first = Feed(), packet(AUDIO)
    title, *rest = feed.tell(first, (VIDEO, AUDIO))
    assert isinstance(title, Metadata)
    assert (title.fields["videocodecid"], title.fields["audiocodecid"]) == (7, 10)
    assert rest == [OPENING, SOUND_OPENING, first.shared]
    second = packet(VIDEO, 40)
    assert feed.tell(second, (VIDEO, AUDIO)) == [second.shared]


def test_a_track_that_comes_later_is_announced_then():
    feed = Feed()
    assert len(feed.tell(packet(VIDEO))) == 3
    late = packet(AUDIO, 500)
    title, opening, shared = feed.tell(late)
    assert (title.dts, title.fields["width"], title.fields["audiochannels"]) == (0, 64, 2)
    assert (opening, shared) == (flv.audio_extradata(ASC, dts=500), late.shared)


def test_a_changed_track_is_announced_again_and_the_other_is_not():
    feed = Feed()
    feed.tell(packet(VIDEO), (VIDEO, AUDIO))
    changed = Track(kind="video", codec="h264", extradata=AVCC + b"\0", width=64, height=36)
    said = feed.tell(packet(changed, 80), (changed, AUDIO))
    assert said[1] == flv.video_extradata(AVCC + b"\0", dts=80)
    assert len(said) == 3


def test_a_codec_that_flv_does_not_know_is_left_out_until_it_changes():
    feed = Feed()
    title, *said = feed.tell(packet(VIDEO), (VIDEO, MP2))
    assert OPENING in said
    assert not any(name.startswith("audio") or name == "stereo" for name in title.fields)
    for _ in range(2):
        assert feed.tell(packet(MP2)) == []
    assert feed.refused == {"audio": 'audio in mp2 cannot be sent as FLV: codec "mp2" has no FourCC'}
    assert feed.refused.report() == ['audio in mp2 cannot be sent as FLV: codec "mp2" has no FourCC']
    assert feed.refused.report() == []
    sound = packet(AUDIO)
    assert feed.tell(sound)[1:] == [SOUND_OPENING, sound.shared]
    assert feed.refused == {}


def test_extradata_of_a_codec_that_flv_does_not_know_do_not_stop_the_picture():
    odd = Track(kind="audio", codec="vorbis", extradata=b"setup", rate=48_000, channels=1)
    feed, first = Feed(), packet(VIDEO)
    assert feed.tell(first, (VIDEO, odd))[1:] == [OPENING, first.shared]
    assert feed.tell(packet(odd)) == []


def test_telephone_sound_is_announced_and_sent_where_flv_knows_its_rate():
    phone = Track(kind="audio", codec="pcm_mulaw", rate=8000, channels=1)
    feed = Feed()
    title, *_ = feed.tell(packet(VIDEO), (VIDEO, phone))
    assert (title.fields["audiocodecid"], title.fields["audiosamplerate"]) == (8, 8000)
    assert [each.media.body for each in feed.tell(packet(phone))] == [b"\x82data"]
    wide = Track(kind="audio", codec="pcm_mulaw", rate=16_000, channels=1)
    title, *_ = Feed().tell(packet(VIDEO), (VIDEO, wide))
    assert "audiocodecid" not in title.fields


def test_what_comes_from_a_publisher_of_flv_goes_on_as_it_came():
    speech = Track(kind="audio", codec="speex", rate=16_000, channels=1)
    relayed = Packet(speech, b"x", pts=0, dts=0, arrival=0, shared=Shared(flv.audio(0, b"\xb6x")))
    feed = Feed()
    assert feed.tell(packet(VIDEO), (VIDEO, speech))[0].fields["audiocodecid"] == 11
    assert feed.tell(relayed) == [relayed.shared]


def test_metadata_leave_out_what_is_not_known():
    hevc = Track(kind="video", codec="hevc", extradata=b"hvcC")
    mono = Track(kind="audio", codec="opus", rate=48_000, channels=1)
    assert metadata([hevc, mono]) == Metadata(
        {
            "encoder": "Mashtun",
            "videocodecid": int.from_bytes(b"hvc1", "big"),
            "audiosamplerate": 48_000,
            "audiochannels": 1,
            "stereo": False,
            "audiocodecid": int.from_bytes(b"Opus", "big"),
        }
    )
    assert metadata([Track(kind="audio", codec="mp2")]).fields == {"encoder": "Mashtun"}


def test_times_are_ms_whatever_the_time_base():
    track = Track(kind="video", codec="h264", extradata=AVCC, time_base=Fraction(1, 90_000))
    said = Feed().tell(packet(track, 90_000))
    assert [said[0].dts, said[1].dts, said[2].media.dts] == [0, 1000, 1000]
