"""Detectors by name, and a user's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from controllers.core.errors import ControllerError
from controllers.core.sample_site import sample_feeder
from controllers.detection.protocol import DetectionSite, Detector, Forecast
from controllers.detection.registry import DETECTORS, descriptions, resolve

GOOD = """
class Mine:
    inputs = ()
    labels = ("one",)
    def __init__(self, site, **options): ...
    def step(self, time_s, inputs): ...
"""


def test_every_shipped_name_gives_a_detector() -> None:
    site = DetectionSite(sample_feeder(), 60.0, Forecast(np.zeros(1), np.ones(1), np.zeros(1)))
    assert set(descriptions()) == {"power-flow-residual", "cusum", "oscillation"}
    for name, text in descriptions().items():
        assert "\n" not in text
        assert isinstance(resolve(name)(site), Detector)


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        (GOOD, "Min", "did you mean 'Mine'"),
        ("1 / 0", "Mine", "ZeroDivisionError"),
        ("Mine = 3", "Mine", "no class 'Mine'"),
        (GOOD.replace("def step", "def stop"), "Mine", r"lacks step\(time_s, inputs\)"),
        (GOOD.replace("site, **options", "self"), "Mine", "another signature"),
    ],
)
def test_a_users_class_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str, words: str
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    module = f"user_detector_{abs(hash((source, name))) % 10**9}"
    (tmp_path / f"{module}.py").write_text(source.replace("(self, self)", "(self)"))
    with pytest.raises(ControllerError, match=words):
        resolve(f"{module}:{name}")


@pytest.mark.parametrize(
    ("name", "words"),
    [("cusm", "did you mean 'cusum'"), ("module:", "no such"), ("no_mod_x:A", "cannot")],
)
def test_unknown_names(name: str, words: str) -> None:
    with pytest.raises(ControllerError, match=words):
        resolve(name)


def test_a_new_detector_is_one_file_and_one_line_of_the_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that the change touches: the class's own, and `controllers/detection/registry.py`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "limit_detector.py").write_text(GOOD)
    line = ("limit_detector:Mine", "a fixed limit")
    monkeypatch.setitem(DETECTORS.shipped, "limit", line)  # type: ignore[misc]
    assert descriptions()["limit"] == "a fixed limit"
    site = DetectionSite(sample_feeder(), 60.0, Forecast(np.zeros(1), np.ones(1), np.zeros(1)))
    assert isinstance(resolve("limit")(site), Detector)
    with pytest.raises(ControllerError, match="did you mean 'limit'"):
        resolve("limt")
