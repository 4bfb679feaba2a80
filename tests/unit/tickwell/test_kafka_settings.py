"""How Kafka is reached: what is refused before anything connects, and what is not shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trustme
from typer.testing import CliRunner

from tickwell.cli import app
from tickwell.errors import SettingError, TickwellError
from tickwell.kafka_settings import SECURITY
from tickwell.settings import PREFIX, Settings
from tickwell.up import state
from tickwell.up.state import State
from tickwell.up.supervisor import check_plain

USER = {"TICKWELL_KAFKA_USERNAME": "u", "TICKWELL_KAFKA_PASSWORD": "hidden"}
SASL = {"TICKWELL_KAFKA": "h:9093", "TICKWELL_KAFKA_SECURITY": "SASL_PLAINTEXT", **USER}


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    """A directory with an authority, and a certificate and a key that do not belong together."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    one, other = authority.issue_cert("one.example"), authority.issue_cert("other.example")
    one.cert_chain_pems[0].write_to_path(tmp_path / "one.pem")
    one.private_key_pem.write_to_path(tmp_path / "one-key.pem")
    other.private_key_pem.write_to_path(tmp_path / "other-key.pem")
    (tmp_path / "text.pem").write_text("no certificate\n")
    return tmp_path


@pytest.mark.parametrize(
    ("value", "write"),
    [
        ("kafka://h:9092", "write TICKWELL_KAFKA=h:9092; a user goes into"),
        ("SASL_SSL://h:9093", "write TICKWELL_KAFKA=h:9093, and TICKWELL_KAFKA_SECURITY=SASL_SSL"),
        ("a:1,ssl://h:2", "write TICKWELL_KAFKA=h:2, and TICKWELL_KAFKA_SECURITY=SSL"),
        ("kafka://u:hidden@h:9092/", "write TICKWELL_KAFKA=h:9092;"),
        ("u:hidden@h:9092", "a user goes into TICKWELL_KAFKA_USERNAME"),
        ("h/x:9092", "must be host:port"),
    ],
)
def test_an_address_is_no_url(value: str, write: str) -> None:
    with pytest.raises(SettingError, match="TICKWELL_KAFKA=") as error:
        Settings.load({"TICKWELL_KAFKA": value})
    assert write in str(error.value)
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"SECURITY": "TLS"}, "TICKWELL_KAFKA_SECURITY=TLS: must be PLAINTEXT, SSL,"),
        ({"MECHANISM": "GSSAPI"}, "TICKWELL_KAFKA_MECHANISM=GSSAPI: must be PLAIN, SCRAM-SHA-256"),
        ({"PASSWORD": ""}, "TICKWELL_KAFKA_PASSWORD=***: must be set"),
        ({"USERNAME": ""}, "TICKWELL_KAFKA_USERNAME=: must be set"),
        ({"SECURITY": "SSL"}, "TICKWELL_KAFKA_USERNAME=u: has no use while"),
        ({"CA": "ca.pem"}, "ca.pem: has no use while"),
        ({"SECURITY": "SASL_SSL", "CA": "no.pem"}, "no.pem: cannot be read: No such file"),
        ({"SECURITY": "SASL_SSL", "CA": "text.pem"}, "text.pem: cannot be used"),
        ({"SECURITY": "SASL_SSL", "KEY": "one-key.pem"}, "needs TICKWELL_KAFKA_CERT beside it"),
        (
            {"SECURITY": "SASL_SSL", "CERT": "one.pem", "KEY": "other-key.pem"},
            "one.pem: cannot be used: KEY_VALUES_MISMATCH",
        ),
    ],
)
def test_what_does_not_go_together_is_told(pem: Path, changes: dict[str, str], said: str) -> None:
    files = {name: str(pem / value) for name, value in changes.items() if value.endswith(".pem")}
    given = {f"TICKWELL_KAFKA_{name}": value for name, value in (changes | files).items()}
    with pytest.raises(SettingError) as error:
        Settings.load(SASL | given)
    assert said in str(error.value)
    assert "hidden" not in str(error.value)


def test_the_text_of_a_certificate_is_no_path(pem: Path) -> None:
    """`TICKWELL_X_FILE` holds the value of `TICKWELL_X`, which is a path here."""
    given = {"TICKWELL_KAFKA_SECURITY": "SSL", "TICKWELL_KAFKA_CA_FILE": str(pem / "ca.pem")}
    with pytest.raises(SettingError, match=r"must be the path of the file, not its text"):
        Settings.load({"TICKWELL_KAFKA": "h:1", **given})


def test_a_password_comes_from_a_file_and_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("from-a-file\n")
    given = {k: v for k, v in SASL.items() if k != "TICKWELL_KAFKA_PASSWORD"}
    settings = Settings.load({**given, "TICKWELL_KAFKA_PASSWORD_FILE": str(file)})
    connection = settings.kafka_connection
    assert connection.librdkafka()["sasl.password"] == "from-a-file"
    assert connection.aiokafka()["sasl_plain_password"] == "from-a-file"
    assert "from-a-file" not in repr(settings) + repr(connection)


def test_spaces_between_addresses() -> None:
    assert Settings.load({"TICKWELL_KAFKA": "a:1, b:2,"}).kafka_connection.servers == "a:1,b:2"


def test_words_of_either_case(pem: Path) -> None:
    given = {"TICKWELL_KAFKA_SECURITY": "sasl_ssl", "TICKWELL_KAFKA_MECHANISM": "scram-sha-256"}
    connection = Settings.load(
        SASL | given | {"TICKWELL_KAFKA_CA": str(pem / "ca.pem")}
    ).kafka_connection
    assert (connection.protocol, connection.mechanism) == ("SASL_SSL", "SCRAM-SHA-256")
    context = connection.ssl_context()
    assert context is not None
    assert context.check_hostname


def test_the_embedded_broker_has_no_user() -> None:
    given = {name: value for name, value in SASL.items() if name != "TICKWELL_KAFKA"}
    with pytest.raises(TickwellError, match="unset TICKWELL_KAFKA_SECURITY for the embedded one"):
        check_plain(Settings.load(given))
    check_plain(Settings.load({}))


def test_a_stack_says_how_its_broker_is_reached_and_keeps_the_password(tmp_path: Path) -> None:
    """Commands find the password in the file of the stack; `env` prints it only when asked."""
    names = ("kafka", *SECURITY, "url")
    settings = Settings.load(SASL)
    environment = {PREFIX + name.upper(): getattr(settings, name) for name in names}
    with state.locked(tmp_path):
        state.write(tmp_path, State(os.getpid(), "running", (), environment))
        found = Settings.of_stack({"TICKWELL_DATA": str(tmp_path)})
        assert found.kafka_connection == settings.kafka_connection
        command = ["env", "--data", str(tmp_path)]
        shown = CliRunner().invoke(app, command)
        assert "TICKWELL_KAFKA_SECURITY=SASL_PLAINTEXT" in shown.stdout
        assert "hidden" not in shown.output
        assert "TICKWELL_KAFKA_PASSWORD is left out; --secrets prints it" in shown.stderr
        assert "hidden" in CliRunner().invoke(app, [*command, "--secrets"]).stdout
