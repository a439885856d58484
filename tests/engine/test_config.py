"""Settings come from arguments over the environment over the defaults, and what makes no sense is one sentence."""

import pytest

from engine.config import Settings, read_settings
from engine.errors import InvalidSpec


def test_arguments_are_over_the_environment_and_that_is_over_the_defaults():
    environment = {"MASHTUN_PORT": "1", "MASHTUN_HOST": "h", "MASHTUN_INSECURE": "true", "PORT": "3"}
    assert read_settings(environment, {"port": 2, "host": None, "log": "text"}) == Settings(
        port=2, host="h", insecure=True
    )


@pytest.mark.parametrize("name", ["HOST", "INSECURE", "PORT", "ORDERING"])
def test_an_empty_variable_is_not_set(name):
    assert read_settings({f"MASHTUN_{name}": ""}, {}) == Settings()


def test_a_variable_that_links_to_a_service_of_our_name_is_not_set():
    environment = {"MASHTUN_PORT": "tcp://10.96.0.12:8570", "MASHTUN_RTMP_PORT": "tcp://10.96.0.12:1935"}
    assert read_settings(environment, {}) == Settings()
    assert read_settings(environment, {"port": 1}) == Settings(port=1)


@pytest.mark.parametrize(
    ("name", "text", "limit"),
    [
        ("pick_lease", "nan", "> 0.0"),
        ("silence", "inf", "<= 1000000000.0"),
        ("quota", "nan", ">= 0.0"),
        ("upload_video", "nan", ">= 0.0"),
        ("patience", "-1", ">= 0.0"),
        ("worker", "-3", ">= 0"),
        ("port", "65536", "<= 65535"),
        ("rtmp_port", "-2", ">= -1"),
        ("output_rate", "0.5", ">= 1"),
        ("output_rate", "121", "<= 120"),
        ("output_rate", "nan", ">= 1"),
        ("insecure", "maybe", "bool"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_limit(name, text, limit):
    for environment, arguments, said in (
        ({f"MASHTUN_{name.upper()}": text}, {}, f"MASHTUN_{name.upper()}"),
        ({}, {name: text}, name),
    ):
        with pytest.raises(InvalidSpec) as caught:
            read_settings(environment, arguments)
        assert str(caught.value).startswith(f"{said} is '{text}': ")
        assert limit in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("username", "ada lovelace"),
        ("password", " p: äss "),
        ("masher_password", "密码"),
        ("secret", "s3cret: äöü"),
        ("publish_key", "a\nb"),  # as %0A of a URL
    ],
)
def test_what_clients_can_send_may_be_set(name, text):
    assert read_settings({f"MASHTUN_{name.upper()}": text}, {}) == Settings(**{name: text})


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("username", "ada:lovelace", "has a colon, behind which everybody looks for the password"),
        ("username", "ada\n", "has characters that cannot be sent"),
        ("password", "secret\x7f", "has characters that cannot be sent"),
        ("masher_password", "\tsecret", "has characters that cannot be sent"),
        ("secret", "secret ", "has characters that cannot be sent"),
        ("secret", "sec\nret", "has characters that cannot be sent"),
        ("publish_key", "s\udce9cret", "is not UTF-8"),
        ("data", "d\udce4ta", "is not UTF-8"),
        ("port", "\udce4", "is not UTF-8"),
    ],
)
def test_what_no_client_can_send_is_refused_and_not_told(name, text, sentence):
    for environment, arguments, said in (
        ({f"MASHTUN_{name.upper()}": text}, {}, f"MASHTUN_{name.upper()}"),
        ({}, {name: text}, name),
    ):
        with pytest.raises(InvalidSpec) as caught:
            read_settings(environment, arguments)
        assert str(caught.value) == f"{said} {sentence}"
