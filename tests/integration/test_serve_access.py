"""`tickwell serve` and `tickwell keys` as processes: where keys are needed, HTTPS, and logs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import trustme
from typer.testing import CliRunner

from registry.formats import api_key
from tests.support.certificates import issue, trusting
from tests.support.pipeline import wait_for
from tests.support.served import beat
from tickwell import cli
from tickwell.embedded.ports import keep_port
from tickwell.up.process import Process, Spec

HOST = "127.0.0.1"
ASK = {"features": ["current_price"], "entity": {"symbol": "A"}}
NO_KEY = "make one with `tickwell keys create NAME --scope read`"


class Done(NamedTuple):
    """How a command has ended, and what it has printed."""

    code: int
    output: str
    errors: str


Run = Callable[..., Done]


@pytest.fixture
def environment(redis_database: str, hot_redis: str, database: str) -> dict[str, str]:
    beat(redis_database)
    return {
        "TICKWELL_REDIS": redis_database,
        "TICKWELL_REDIS_HOT": hot_redis,
        "TICKWELL_POSTGRES": database,
        "TICKWELL_CLUSTER": "false",
    }


@pytest.fixture
def run(environment: Mapping[str, str]) -> Run:
    """Runs a command in this process, which takes a tenth of the time of one of its own."""

    def call(*arguments: str, **more: str) -> Done:
        done = CliRunner().invoke(cli.app, arguments, env={**environment, **more})
        error = done.exception
        said = "" if not isinstance(error, Exception) else f"tickwell: {cli.message_for(error)}"
        return Done(done.exit_code, done.stdout, done.stderr + said)

    return call


@contextmanager
def serving(
    environment: Mapping[str, str], directory: Path, *arguments: str, scheme: str = "http"
) -> Iterator[str]:
    """The URL of a server that runs; its log is `server.log` in the directory."""
    port = keep_port(directory / "port")

    def check() -> None:
        try:
            httpx.get(f"{scheme}://{HOST}:{port}/health/live", verify=False, trust_env=False)
        except httpx.HTTPError as error:
            raise OSError(str(error)) from None

    argv = [sys.executable, "-m", "tickwell", "serve", "--port", str(port), *arguments]
    spec = Spec("server", argv, directory / "server.log", env=environment, check=check)
    process = Process(spec)
    process.start()
    try:
        process.wait_ready()
        yield f"{scheme}://{HOST}:{port}"
    finally:
        process.stop()


def status(url: str, key: str | None = None, **options: Any) -> int:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    with httpx.Client(trust_env=False, **options) as client:
        return client.post(f"{url}/features/online", json=ASK, headers=headers).status_code


def test_the_command_prints_a_key_once_and_nothing_else(
    run: Run, environment: Mapping[str, str]
) -> None:
    scopes = ("--scope", "read", "--scope", "write")
    made = subprocess.run(
        [sys.executable, "-m", "tickwell", "keys", "create", "model", *scopes, "--expires", "90d"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert made.returncode == 0, made.stderr
    key = made.stdout.removesuffix("\n")
    assert api_key.flaw(key.encode()) == ""
    assert "it is not shown again" in made.stderr
    assert key not in made.stderr
    (listed,) = json.loads(run("keys", "list", "--json").output)
    assert (listed["name"], listed["scopes"]) == ("model", ["read", "write"])
    assert listed["fingerprint"] == api_key.digest(key.encode()).hex()[:12]
    shown = run("keys", "list").output
    assert "read write" in shown
    assert "valid until" in shown
    assert key not in shown
    revoked = run("keys", "revoke", "model")
    assert revoked.output.startswith("key 1 'model' is revoked")
    assert "'model'" in run("keys", "revoke", "1").output
    assert run("keys", "list").output == ""
    assert "revoked" in run("keys", "list", "--revoked").output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "1", "--scope", "read"), "tickwell: '1' is no name for a key"),
        (("create", "a"), "Missing option '--scope'"),
        (("create", "a", "--scope", "all"), "'all' is not one of 'read', 'write', 'admin'"),
        (("create", "a", "--scope", "read", "--expires", "soon"), "a time such as 90d or 12h"),
        (("create", "a", "--scope", "read", "--expires", "0d"), "a time such as 90d or 12h"),
        (("revoke", "a"), "tickwell: no key has the name or the number 'a'"),
    ],
)
def test_what_a_person_gets_wrong(run: Run, arguments: tuple[str, ...], said: str) -> None:
    done = run("keys", *arguments)
    assert done.code != 0
    assert done.output == ""
    assert said in " ".join(done.errors.replace("│", "").split())


def test_postgres_is_away(run: Run) -> None:
    nowhere = {"TICKWELL_POSTGRES": "postgresql://u:secret@127.0.0.1:1/none"}
    for arguments in (("create", "a", "--scope", "read"), ("list",)):
        done = run("keys", *arguments, **nowhere)
        assert (done.code, done.output) == (1, "")
        assert done.errors.startswith("tickwell: TICKWELL_POSTGRES: connection")
        assert "secret" not in done.errors
    done = run("keys", "revoke", "a", **nowhere)
    assert (done.code, done.errors[:28]) == (1, "tickwell: nothing is revoked")


def test_redis_is_away(run: Run) -> None:
    made = run("keys", "create", "a", "--scope", "read", TICKWELL_REDIS="redis://127.0.0.1:1/0")
    assert made.code == 0
    assert api_key.flaw(made.output.strip().encode()) == ""
    assert "Redis did not take a copy of the keys" in made.errors


@pytest.mark.parametrize(
    "arguments", [("--host", "0.0.0.0"), ("--host", "::"), ("--host", ""), ("--keys",)]
)
def test_without_keys_it_does_not_start_where_it_needs_them(
    run: Run, arguments: tuple[str, ...]
) -> None:
    done = run("serve", *arguments)
    assert done.code == 1
    assert done.errors.startswith("tickwell: ")
    assert NO_KEY in done.errors
    assert "--no-keys" in done.errors


def test_without_postgres_the_copy_tells_whether_there_are_keys(run: Run) -> None:
    made = run("keys", "create", "a", "--scope", "read")
    assert made.code == 0, made.errors
    assert run("keys", "revoke", "a").code == 0
    done = run("serve", "--keys", TICKWELL_POSTGRES="postgresql://u:p@127.0.0.1:1/none")
    assert (done.code, NO_KEY in done.errors) == (1, True)


def test_on_loopback_no_key_is_needed_unless_it_is_asked_for(
    run: Run, environment: Mapping[str, str], tmp_path: Path
) -> None:
    key = run("keys", "create", "model", "--scope", "read").output.strip()
    with serving(environment, tmp_path) as url:
        assert status(url) == 200
    with serving(environment, tmp_path, "--keys") as url:
        assert [status(url), status(url, api_key.make()), status(url, key)] == [401, 401, 200]
        assert status(url, key[:-1]) == 401
        assert httpx.get(f"{url}/health/ready", trust_env=False).status_code == 200
    log = (tmp_path / "server.log").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert [line["status"] for line in lines] == [401, 401, 401]
    assert {line["path"] for line in lines} == {"/features/online"}
    assert key[:-1] not in log


def test_https(run: Run, environment: Mapping[str, str], tmp_path: Path) -> None:
    authority = trustme.CA()
    files = issue(authority, tmp_path / "tls", HOST)
    key = run("keys", "create", "model", "--scope", "read").output.strip()
    arguments = ("--keys", "--tls-cert", files.certificate, "--tls-key", files.key)
    with serving(environment, tmp_path, *arguments, scheme="https") as url:
        trust = trusting(authority)
        assert status(url, key, verify=trust) == 200
        assert status(url, verify=trust) == 401
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            status(url, key, verify=trusting(trustme.CA()))
        with pytest.raises(httpx.HTTPError):
            status(url.replace("https", "http"), key)
        newer = trustme.CA()
        issue(newer, tmp_path / "tls", HOST)

        def is_shown() -> bool:
            try:
                return status(url, key, verify=trusting(newer)) == 200
            except httpx.ConnectError:
                return False

        wait_for("the new certificate", is_shown, patience=20)


def test_files_that_do_not_fit(run: Run, tmp_path: Path) -> None:
    authority = trustme.CA()
    one, other = (issue(authority, tmp_path / name, HOST) for name in ("one", "other"))
    done = run("serve", TICKWELL_TLS_CERT=one.certificate, TICKWELL_TLS_KEY=other.key)
    assert done.code == 1
    assert done.errors.startswith("tickwell: TICKWELL_TLS_CERT=")
    assert "do not fit together" in done.errors
