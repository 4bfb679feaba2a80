"""Compiled code that is kept: never outdated, and never an obstacle to a start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.runtime import machine_code as compiled

ROOT = Path(__file__).parents[4]
ROWS = """
import hashlib
import numpy as np
from pipelines.compute import kernel
from pipelines.compute.entity_columns import EntityColumns, SeqRings
from pipelines.compute.instructions import Instructions
from pipelines.runtime.named_columns import allocate

n = 100
ticks = allocate(kernel.TickColumns, n, fields=1)
for column in (ticks.offset, ticks.time, ticks.seq):
    column[:] = np.arange(n)
ticks.fields[:, 0] = [i * i % 97 + 1.0 for i in range(n)]
code = allocate(Instructions, 2)
code.function[:], code.window[:] = (3, 2), (20, 5)  # stddev of 20 log returns, mean of 5
sizes = {"lookback": 64, "fields": 1, "longest_returns": 64, "returns": 1}
entities = allocate(EntityColumns, 1, block=8, tick_fields=1, **sizes)
entities.seq_ring[0] = 1
rings = allocate(SeqRings, 2, remembered=64, block=8)
rows = allocate(kernel.RowColumns, n, features=2)
kernel.advance(ticks, kernel.RunContext(0, 0, 10**9), code, entities, rings, rows)
stats = kernel.advance.stats
print(hashlib.sha256(rows.features.tobytes() + rows.status.tobytes()).hexdigest())
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""
"""The kernel alone, over the prices of one entity: what else is compiled is not imported."""

LOGARITHM = """
from pipelines.compute.natural_log import log
print(log(2.5).hex())
print(sum(log.stats.cache_hits.values()), sum(log.stats.cache_misses.values()))
"""
"""A function that compiles in a second, where it does not matter which one it is."""

PREPARED = """
import sys
from pipelines.compute.natural_log import log
print(log(2.5).hex())
print("numba.typed.typeddict" in sys.modules)
"""
"""Whether numba made itself ready to compile: the module is one of eighty that it then imports."""


def copied(destination: Path) -> Path:
    """A copy of the packages in `destination`, without machine code."""
    ignored = shutil.ignore_patterns("__pycache__")
    for package in ("pipelines", "registry"):
        shutil.copytree(ROOT / package, destination / package, ignore=ignored)
    return destination


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The packages as they are installed, where nothing was compiled yet."""
    return copied(tmp_path / "src")


@pytest.fixture(scope="module")
def first_start(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, str]]:
    """Packages with which the kernel ran once, and what it gave; to be copied, not changed."""
    directory = copied(tmp_path_factory.mktemp("first") / "src")
    return directory, result(start(directory))


@pytest.fixture
def started(first_start: tuple[Path, tuple[str, str]], tmp_path: Path) -> Path:
    """Packages with the machine code of a first start."""
    return Path(shutil.copytree(first_start[0], tmp_path / "started"))


def start(installed: Path, program: str = ROWS, **settings: str) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_")}
    # Python takes its bytecode for that of a file whose size and time are the same
    kept |= {"PYTHONPATH": f"{installed}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=installed,
        env={**kept, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> tuple[str, str]:
    """(What was computed, "hits misses" of the function in the cache)."""
    output, wrong = process.communicate()
    assert process.returncode == 0, wrong
    rows, counts = output.splitlines()
    return rows, counts


def change(file: Path, old: str, new: str) -> None:
    """An update that leaves the file's size and time as they were."""
    assert len(old) == len(new)
    text, times = file.read_text(), file.stat()
    assert old in text
    file.write_text(text.replace(old, new))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_the_second_start_compiles_nothing(first_start: tuple[Path, tuple[str, str]]) -> None:
    directory, first = first_start
    second = result(start(directory))
    assert (first[1], second[1]) == ("0 1", "1 0")
    assert first[0] == second[0]


def test_the_second_start_does_not_prepare_to_compile(installed: Path) -> None:
    first, second = (result(start(installed, PREPARED)) for _ in range(2))
    assert (first[1], second[1]) == ("True", "False")
    assert first[0] == second[0]


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("pipelines/compute/natural_log.py", "LG1 = 6.66", "LG1 = 6.99"),
        ("registry/formats/row.py", "WARMING = 1", "WARMING = 7"),
    ],
)
def test_a_change_of_another_module_is_not_missed(
    started: Path, module: str, old: str, new: str
) -> None:
    """The kernel's own file stays as it was; what it is compiled from does not."""
    before = result(start(started))
    change(started / module, old, new)
    after = result(start(started))
    assert after[1] == "0 1"
    assert after[0] != before[0]
    change(started / module, new, old)
    assert result(start(started)) == (before[0], "1 0")


def test_the_directory_can_be_named(installed: Path, tmp_path: Path) -> None:
    named = {"NUMBA_CACHE_DIR": str(tmp_path / "named")}
    before = result(start(installed, LOGARITHM, **named))
    assert list((tmp_path / "named").rglob("*.nbi"))
    assert not list(installed.rglob("*.nbi"))
    assert result(start(installed, LOGARITHM, **named)) == (before[0], "1 0")


def test_broken_files_are_replaced(installed: Path) -> None:
    """What a machine that lost its power leaves: files of the right names with nothing in them."""
    before = result(start(installed, LOGARITHM))
    for kept in installed.rglob("*.nb?"):
        kept.write_bytes(b"")
    assert result(start(installed, LOGARITHM)) == (before[0], "0 1")
    assert result(start(installed, LOGARITHM)) == (before[0], "1 0")


def test_many_cold_starts_at_once(installed: Path) -> None:
    starts = [start(installed, LOGARITHM) for _ in range(4)]
    found = [result(process) for process in starts]
    assert len({rows for rows, _ in found}) == 1
    assert result(start(installed, LOGARITHM))[1] == "1 0"


def test_old_directories_do_not_pile_up(installed: Path) -> None:
    root = installed / "pipelines/__pycache__"
    for number in range(20):
        old = root / f"{compiled.PREFIX}{number:016x}"
        old.mkdir(parents=True)
        os.utime(old, (number, number))
    other = root / "something-else"
    other.mkdir()
    result(start(installed, LOGARITHM))
    left = sorted(directory.name for directory in root.glob(f"{compiled.PREFIX}*"))
    assert len(left) == compiled.KEPT
    assert f"{compiled.PREFIX}{19:016x}" in left
    assert other.exists()
    assert result(start(installed, LOGARITHM))[1] == "1 0"


def test_one_start_compiles_for_all(installed: Path) -> None:
    """Every module with compiled functions, in whichever folder, and two of one name apart."""
    twice = (
        "from pipelines.runtime.machine_code import compiled\n\n\n"
        '@compiled("float64(float64)")\ndef scaled(x):\n    return {factor} * x\n'
    )
    for folder, factor in (("", 2.0), ("room/", 3.0), ("room/deeper/", 5.0)):
        (installed / "pipelines" / folder).mkdir(exist_ok=True)
        (installed / "pipelines" / folder / "__init__.py").touch()
        (installed / "pipelines" / folder / "extra.py").write_text(twice.format(factor=factor))
    # it takes as long as all others together; that it is kept is seen in the container's image
    (installed / "pipelines/ticks/json_scanner.py").unlink()
    warm_up = "from pipelines.runtime.machine_code import warm_up; warm_up()"
    subprocess.run([sys.executable, "-c", warm_up], cwd=installed, check=True)
    kept = [path.name.split("-")[0] for path in installed.rglob("*.nbi")]
    assert {"kernel.advance", "natural_log.log"} <= set(kept)
    assert kept.count("extra.scaled") == 3
    assert result(start(installed))[1] == "1 0"
    products = subprocess.run(
        [
            sys.executable,
            "-c",
            "from pipelines import extra as a\n"
            "from pipelines.room import extra as b\n"
            "from pipelines.room.deeper import extra as c\n"
            "print(a.scaled(1.0), b.scaled(1.0), c.scaled(1.0))\n"
            "print(sum(sum(m.scaled.stats.cache_hits.values()) for m in (a, b, c)))",
        ],
        cwd=installed,
        check=True,
        capture_output=True,
        text=True,
    )
    assert products.stdout.split() == ["2.0", "3.0", "5.0", "3"]


def test_a_change_in_a_subfolder_is_not_missed(installed: Path) -> None:
    """The digest is of every source, however deep: an old kernel must not survive an edit."""
    constant = installed / "pipelines/room/deeper/constant.py"
    constant.parent.mkdir(parents=True)
    constant.write_text("ALPHA = 1.0\n")
    before = result(start(installed, LOGARITHM))
    assert result(start(installed, LOGARITHM))[1] == "1 0"
    change(constant, "1.0", "2.0")
    assert result(start(installed, LOGARITHM)) == (before[0], "0 1")
