"""Which servers values are stored in."""

from __future__ import annotations

import pytest

from pipelines.errors import RedisTooOld
from pipelines.stores.redis.server_checks import check_version


@pytest.mark.parametrize("version", ["7.0.0", 7.2, "10.0.0", "255.255.255", "unstable", None])
def test_versions_that_run_the_scripts(version: object) -> None:
    """Valkey names the version of Redis that it is compatible with; some servers name none."""
    check_version(version)


@pytest.mark.parametrize("version", ["6.2.14", 6.3])
def test_an_older_version_is_told(version: object) -> None:
    with pytest.raises(RedisTooOld, match=rf"of version {version}, and 7\.0 is the oldest"):
        check_version(version)
