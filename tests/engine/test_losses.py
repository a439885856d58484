"""What has grown is told once, what has not is not."""

from engine.losses import Losses


def test_only_what_has_grown_since_the_last_look_is_told():
    losses = Losses()
    counted = {"event show": {"lagged": 12, "skipped": 3, "dropped": 0}, "stream live/cam": {"dropped": 5}}
    assert losses.since(counted) == ["event show: 12 lagged, 3 skipped", "stream live/cam: 5 dropped"]
    assert losses.since(counted) == []
    later = {"event show": {"lagged": 13, "skipped": 3, "dropped": 2}, "stream live/cam": {"dropped": 5}}
    assert losses.since(later) == ["event show: 1 lagged, 2 dropped"]


def test_what_has_begun_anew_is_told_from_there_on():
    losses = Losses()
    assert losses.since({"event show": {"lagged": 12}}) == ["event show: 12 lagged"]
    assert losses.since({"event show": {"lagged": 2}}) == []
    assert losses.since({"event show": {"lagged": 3}}) == ["event show: 1 lagged"]
    assert losses.since({}) == []
    assert losses.since({"event show": {"lagged": 3}}) == ["event show: 3 lagged"]
