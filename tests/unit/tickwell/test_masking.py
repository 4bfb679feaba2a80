"""No error about a setting shows a part of a secret, wherever in the value it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tickwell import Client
from tickwell.errors import SettingError, TickwellError
from tickwell.settings import Settings

KEY = "-----BEGIN PRIVATE KEY-----\nSECRET\n-----END PRIVATE KEY-----\n"


def told(environment: dict[str, str]) -> str:
    """The error of an environment: one line that holds no part of what is secret in the tests."""
    with pytest.raises(SettingError) as error:
        Settings.load(environment)
    message = str(error.value)
    assert "\n" not in message
    words = message.replace("_SECURITY", "")
    assert not [part for part in ("SEC", "RET", "ret") if part in words]
    return message


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:50%OFFSECRET@host/db", "a % that encodes nothing is written %25"),
        ("postgresql://h/db?user=u&password=SECRET%zz", "is written %25"),
        ("postgresql://u:SECRET@[::1/db", "% as %25, @ as %40"),
        ("postgresql://u:SECRET@[::1]x/db", "% as %25, @ as %40"),
        ("postgresql://u:SECRET%00@h/db", "% as %25, @ as %40"),
        ("postgresql://h/db?user=u&SECRET", "% as %25, @ as %40"),
        ("postgresql://h/db?user=u&SECRET=", "% as %25, @ as %40"),
        ("postgresql://h/db?user=u&SECRET==", "% as %25, @ as %40"),
        ("postgresql://h/db?user=u&SEC.RET=x", "% as %25, @ as %40"),
        ("postgresql://h/db?password=SEC&RET=x", "% as %25, @ as %40"),
        ("postgresql://h/db?passwd=SECRET", 'invalid URI query parameter: "passwd"'),
        ("postgresql://u:p@h:12３/db", "host and port cannot be read"),
        ("postgresql://h/db?sslkey=-----BEGIN SECRET", "the file of sslkey cannot be read"),
    ],
)
def test_of_libpq(url: str, said: str) -> None:
    assert said in told({"TICKWELL_POSTGRES": url})


@pytest.mark.parametrize(
    ("servers", "write"),
    [
        ("sasl_ssl://user:SEC,RET@host:9093", "=host:9093, and TICKWELL_KAFKA_SECURITY=SASL_SSL;"),
        ("user:SEC,RET@host:9093", "TICKWELL_KAFKA=host:9093;"),
        ("sasl_ssl://user:123/SECRET@host:9093", "TICKWELL_KAFKA=host:9093, and"),
        ("ssl://user:SEC@RET@[::1]:9093/", "TICKWELL_KAFKA=[::1]:9093, and"),
        ("user:SEC://RET@host:9093", "TICKWELL_KAFKA=host:9093;"),
        ("user:x@SECRET,host:9093", "TICKWELL_KAFKA=host:9092;"),
        ("user:x@SECRET:99999", "TICKWELL_KAFKA=host:9092;"),
        ("kafka://host:9092?sasl_password=SECRET", "TICKWELL_KAFKA=host:9092;"),
        ("kafka://u:x@host:9093?sasl_password=SECRET", "TICKWELL_KAFKA=host:9092;"),
        ("host:9092?password=SECRET", "TICKWELL_KAFKA=host:9092;"),
        ("a:1,host:9092;password=SECRET", "TICKWELL_KAFKA=host:9092;"),
    ],
)
def test_of_the_brokers(servers: str, write: str) -> None:
    message = told({"TICKWELL_KAFKA": servers})
    assert message.startswith("TICKWELL_KAFKA=***: ")
    assert write in message
    assert "SECRET" not in repr(Settings(kafka=servers))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://u:SECRET@h:8081", "***"),
        ("http://u:12,SECRET@h:8081", "***"),
        ("https://a,http://u:SECRET@h", "***"),
        ("http://h/?token=SECRET", "***"),
        ("http://h;password=SECRET", "***"),
        ("h:8081", "h:8081"),
        ("ftp://h/x", "***"),
        ("http://h:99999", "http://h:99999"),
        ("http://h:0", "http://h:0"),
        ("http://", "http://"),
        ("http://a,b", "http://a,b"),
    ],
)
def test_of_the_schema_registry(url: str, shown: str) -> None:
    message = told({"TICKWELL_SCHEMA_REGISTRY": url})
    assert message.startswith(f"TICKWELL_SCHEMA_REGISTRY={shown}: must be a URL ")
    assert "SECRET" not in repr(Settings(schema_registry=url))


@pytest.mark.parametrize("port", ["９０", "0", "65536", "9" * 5000, "", "-1"])
def test_a_port_is_of_ascii_digits(port: str) -> None:
    assert "must be host:port" in told({"TICKWELL_KAFKA": f"host:{port}"})


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://u:SEC/RET@h:80", "http://***@h:80"),
        ("http://u:SEC@RET/@h:80", "http://***@h:80"),
        ("ftp://u:SECRET@h", "***@h"),
        ("u:SECRET@h:80", "***@h:80"),
        ("u:SEC://RET@h", "***@h"),
        ("http://u:SECRET", "http://***"),
        ("ftp://h/x", "ftp://h/x"),
        ("h?token=SECRET", "***"),
    ],
)
def test_of_the_server(url: str, shown: str) -> None:
    assert f"TICKWELL_URL={shown}: " in told({"TICKWELL_URL": url})


@pytest.mark.parametrize("url", ["http://u:SECRET@h:80/x", "http://h/?token=SECRET"])
def test_of_the_server_in_a_log(url: str) -> None:
    settings = Settings.load({"TICKWELL_URL": url})
    assert settings.url == url
    assert "SECRET" not in repr(settings)
    assert "url='http://127.0.0.1:8001'" in repr(Settings())


@pytest.mark.parametrize("before", ["", "\n", "  \n\t", "\ufeff", '"'])
@pytest.mark.parametrize("name", ["KEY", "CERT", "CA"])
def test_of_the_text_of_a_key(name: str, before: str) -> None:
    given = {"TICKWELL_KAFKA": "h:1", f"TICKWELL_KAFKA_{name}": before + KEY}
    for security in ("SSL", "PLAINTEXT"):
        message = told({**given, "TICKWELL_KAFKA_SECURITY": security})
        assert "must be the path of the file, not its text" in message
    assert "SECRET" not in repr(Settings(kafka_key=before + KEY))


def test_of_a_key_without_its_header() -> None:
    given = {"TICKWELL_KAFKA": "h:1", "TICKWELL_KAFKA_KEY": "MC4CAQ/SECRET+x"}
    assert "TICKWELL_KAFKA_KEY=***: has no use" in told(given)


@pytest.mark.parametrize(
    "name",
    [
        *("POSTGRES", "REDIS", "KAFKA_PASSWORD", "KAFKA_KEY_PASSWORD", "KAFKA_KEY", "KAFKA", "URL"),
        *("SCHEMA_REGISTRY", "SCHEMA_REGISTRY_PASSWORD"),
    ],
)
@pytest.mark.parametrize(
    "value", ["SECRET", "/SECRET", "//SECRET", "redis://u:SECRET@h", KEY, "SECRET" * 1000]
)
def test_of_a_file_that_is_no_path(name: str, value: str) -> None:
    message = told({f"TICKWELL_{name}_FILE": value})
    assert message.startswith(f"TICKWELL_{name}_FILE=***: cannot be read: ")
    assert message.endswith("it must be the path of a file that holds the value")


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for name in ("POSTGRES", "CAPACITY"):
        with pytest.raises(TickwellError) as error:
            Settings.load({f"TICKWELL_{name}_FILE": str(missing)})
        shown = f"TICKWELL_{name}_FILE={missing}: cannot be read: No such file or directory"
        assert str(error.value) == shown
    missing.write_bytes(b"\xff")
    with pytest.raises(TickwellError, match=r"it does not hold UTF-8 text$"):
        Settings.load({"TICKWELL_POSTGRES_FILE": str(missing)})


@pytest.mark.parametrize("variable", ["TICKWELL_REDIS", "TICKWELL_REDIS_HOT"])
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h?socket_timeout=SECRET", 'the parameter "socket_timeout"'),
        ("redis://h?socket_timeout=60", '"socket_timeout" is Tickwell\'s own to set'),
        ("redis://h?decode_responses=true", '"decode_responses" is Tickwell\'s own to set'),
        (
            "redis://h?db=1&health_check_interval=9",
            '"health_check_interval" is Tickwell\'s own to set',
        ),
        ("rediss://h?ssl_validate_ocsp=true", 'the parameter "ssl_validate_ocsp", or not'),
        ("redis://h?command_packer=x", 'the parameter "command_packer", or not'),
        ("redis://h?maint_notifications_config=x", "maint_notifications_config"),
        ("redis://h?db=1&passwrd=SECRET", 'the parameter "passwrd"'),
        ("rediss://h?ssl_cert_reqs=SECRET", 'the parameter "ssl_cert_reqs"'),
        ("redis://h?ssl_cert_reqs=none", 'the parameter "ssl_cert_reqs"'),
        ("redis://h?protocol=7", 'the parameter "protocol"'),
        ("redis://h?password=SEC&RET=x", "redis-py does not take a parameter,"),
        ("redis://:12?SEC=RET@h:6379/0", "host and port cannot be read"),
    ],
)
def test_of_redis(variable: str, url: str, said: str) -> None:
    assert said in told({variable: url})


@pytest.mark.parametrize(
    "url",
    [
        "rediss://h?ssl_cert_reqs=none&ssl_check_hostname=false",
        "redis://h?username=u&password=p%26q%3Dr%40&db=2&protocol=3",
        "unix:///run/redis?db=1&password=p@q",
        "rediss://h?ssl_min_version=771&ssl_ciphers=AES256-SHA&ssl_password=p&client_name=tickwell",
        "redis://h?socket_keepalive=yes",
    ],
)
def test_what_redis_takes(url: str) -> None:
    assert Settings.load({"TICKWELL_REDIS": url}).redis == url


def test_of_a_server_that_does_not_answer() -> None:
    client = Client("http://u:SECRET@127.0.0.1:1")
    with pytest.raises(TickwellError, match=r"no answer from http://\*\*\*@127\.0\.0\.1:1 \("):
        client.health()
    client.close()
