"""Every public name has an example in its docstring, and it is true."""

from __future__ import annotations

import doctest
import inspect
import shutil
from pathlib import Path

import cv2
import pytest

import fsagn_onnx
from fsagn_onnx.testing.synthetic import render

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = [name for name in fsagn_onnx.__all__ if name != "__version__"]
FLAGS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL | doctest.NORMALIZE_WHITESPACE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, its explainer and four pictures: what the examples are about."""
    made = tmp_path_factory.mktemp("examples")
    shutil.copy(ROOT / "models" / "demo_cnn.onnx", made / "model.onnx")
    shutil.copy(ROOT / "models" / "demo_explainer.onnx", made / "explainer.onnx")
    (made / "photos").mkdir()
    for seed in range(4):
        cv2.imwrite(str(made / "photos" / f"{seed}.png"), render(seed).image[..., ::-1])
    return made


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_is_true(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    thing = getattr(fsagn_onnx, name)
    known = {public: getattr(fsagn_onnx, public) for public in PUBLIC}
    example = doctest.DocTestParser().get_doctest(inspect.getdoc(thing) or "", known, name, None, None)
    assert example.examples, f"{name} has no example in its docstring"
    said: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(example, out=said.append, clear_globs=False)
    assert not said, "".join(said)
