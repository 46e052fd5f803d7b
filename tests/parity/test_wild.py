"""Two small networks of the wild list (`make wild`), fetched, from inspect to a proven export."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.coverage import wild
from benchmarks.coverage.wild_table import passes, summary, verdicts

SMALL = ("vietcombank", "tinyocr-v6-rec")


@pytest.mark.slow
@pytest.mark.fetch
@pytest.mark.parametrize("name", SMALL)
def test_a_strangers_network_from_inspect_to_export(name, tmp_path, monkeypatch):
    monkeypatch.setattr(wild, "CACHE", Path(tmp_path))
    network = next(item for item in wild.NETWORKS if item.id == name)
    result = wild.checked(network)
    if "fetch" in result and "cannot be fetched" in result["fetch"]:
        pytest.skip(result["fetch"])
    assert passes(network, result), summary(network, result)
    words = verdicts(network, result)
    assert (words["prediction"], words["layer"]) == ("right", "right")
    assert words["spec"] in ("right", "guessed")
