"""The image that the Dockerfile makes, without a container engine.

The package is installed as the image has it: no checkout, none of the packages that only
`tickwell[embedded]` brings, the kernel compiled by the Dockerfile's own line. As root its commands
run under the restrictions of `compose.yaml` (`container.sh`); without root what is left of them is
that the installation cannot be written and that there is no home.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import requires
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "compose/Dockerfile").read_text()
CONTAINER = Path(__file__).with_name("container.sh")
PREFIX = "/opt/tickwell"
"""Where the image has what here is in `Image.directory`."""


@dataclass(frozen=True)
class Image:
    """An installation in `directory`."""

    directory: Path

    def argv(self, command: Sequence[str], secrets: Path | None = None) -> list[str]:
        """What to run for a command of the image; `secrets` is a folder that it may read."""
        words = [word.replace(PREFIX, str(self.directory)) for word in command]
        if os.geteuid() != 0:
            return words
        kept = [Path(sys.base_prefix), _dependencies(), self.directory]
        kept += [] if secrets is None else [secrets]
        return [
            *("unshare", "--mount", "--propagation", "private", str(CONTAINER)),
            *("\n".join(map(str, kept)), "\n".join(sorted(_closed(kept)))),
            *words,
        ]

    def environment(self, settings: Mapping[str, str]) -> dict[str, str]:
        """What the image sets, and `settings`; nothing of the caller's."""
        last = DOCKERFILE.rsplit("\nFROM ", 1)[1]
        image = {name: value.replace(PREFIX, str(self.directory)) for name, value in _env(last)}
        image["PATH"] = image["PATH"].replace("$PATH", os.defpath)
        return {**image, "HOME": "/home/tickwell", **settings}


def build(directory: Path) -> Image:
    """Install into `directory`, which is made, and compile as the Dockerfile does."""
    image = Image(directory)
    venv.create(directory, symlinks=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(directory)})
    source = directory / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("registry", "pipelines", "serving", "tickwell"):
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--python", str(directory / "bin/python"), "install"]
    subprocess.run([*pip, "--quiet", "--no-deps", str(source)], check=True)
    Path(packages, "dependencies.pth").write_text(
        f"{_dependencies()}\n"
        f"import sys; sys.modules.update(dict.fromkeys({sorted(_not_in_the_image())!r}))\n"
    )
    first = DOCKERFILE.rsplit("\nFROM ", 1)[0]
    (compile_kernel,) = re.findall(r"^RUN (\S+/python .*)$", first, re.M)
    subprocess.run(
        compile_kernel.replace(PREFIX, str(directory)),
        cwd=source,
        env=dict(_env(first)),
        shell=True,
        check=True,
    )
    shutil.rmtree(source)
    shutil.copy(ROOT / "compose/healthcheck.py", directory)
    if os.geteuid() != 0:
        for folder, _, files in os.walk(directory):
            for path in (Path(folder), *(Path(folder, file) for file in files)):
                if not path.is_symlink():
                    path.chmod(path.stat().st_mode & ~0o222)
    return image


def _env(stage: str) -> Iterator[tuple[str, str]]:
    """The variables that a stage of the Dockerfile sets."""
    for block in re.findall(r"^ENV ((?:.*\\\n)*.*)$", stage, re.M):
        for word in block.replace("\\\n", " ").split():
            name, _, value = word.partition("=")
            yield name, value


def _dependencies() -> Path:
    return Path(sysconfig.get_path("purelib"))


def _not_in_the_image() -> set[str]:
    """Modules of the packages that only the extra `embedded` brings and the image does not."""
    packages = [
        re.split(r"[^\w-]", requirement)[0]
        for requirement in requires("tickwell") or []
        if 'extra == "embedded"' in requirement
    ]
    return {name.replace("-", "_") for name in packages if f'"{name}' not in DOCKERFILE}


def _closed(directories: Sequence[Path]) -> set[str]:
    """The folders above them that only their owner may pass, the outermost of each path."""
    closed = set()
    for directory in directories:
        for folder in reversed(directory.parents):
            if not folder.stat().st_mode & stat.S_IXOTH:
                closed.add(str(folder))
                break
    return {folder for folder in closed if not folder.startswith("/tmp/")}
