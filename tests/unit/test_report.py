"""Results on disk: names, whole files, and a page that no file name or label can write into."""

from __future__ import annotations

import html.parser
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsagn_onnx.data.files import LineFile, make_folder, read_lines, write_file
from fsagn_onnx.errors import OutputError
from fsagn_onnx.explanations.page import Facts, article, article_name, escaped_name, page
from fsagn_onnx.model.geometry import Geometry, Window
from fsagn_onnx.runs.names import Names, safe_stem
from fsagn_onnx.runtime import Explanation, Failure, FilterExplanation, Prediction

NASTY = "</title><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;\x1b[31m.png"


def explanation(name: str, label: str | None) -> Explanation:
    window = Window(0, 0, 16, 16)
    rank = (np.arange(16, dtype=np.float32).reshape(4, 4) + 1) / 16
    explained = FilterExplanation(
        3,
        1.5,
        area=0.25,
        retention_predicted=0.8,
        retention_measured=None,
        area_rank=rank,
        curve=((0.1, 0.5), (0.5, 0.9)),
        box=(0, 0, 4, 4),
        centroid=(2.0, 2.0),
    )
    return Explanation(
        name=name,
        path=Path(name),
        size=(16, 16),
        geometry=Geometry.from_windows((16, 16), (16, 16), window, window),
        predictions=(Prediction(0, label, 0.75),),
        filters=(explained,),
        preview=np.zeros((16, 16, 3), np.uint8),
    )


class Elements(html.parser.HTMLParser):
    """Which tags, attributes and texts a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def whole_page(name: str, label: str | None) -> str:
    facts = Facts(name, name, "tool", {"filters": name}, 1, 1, [Failure(name, f"{name}: broken")], 1)
    return "".join(page(facts, iter([article(explanation(name, label), name)])))


def test_names_and_labels_cannot_write_into_the_page() -> None:
    nasty, plain = Elements(whole_page(NASTY, NASTY)), Elements(whole_page("a", "b"))
    assert nasty.tags == plain.tags
    assert nasty.attributes == plain.attributes
    assert "\\u003cscript\\u003ealert(1)\\u003c/script\\u003e" in nasty.text
    assert "\x1b" not in whole_page(NASTY, NASTY)


@given(st.text(max_size=40), st.text(max_size=20))
def test_no_text_changes_the_page_s_elements(name: str, label: str) -> None:
    line = article(explanation(name, label or "x"), name)
    assert Elements(line).tags == Elements(article(explanation("a", "b"), "a")).tags
    assert line.count("\n") == 1
    assert article_name(line) == escaped_name(name)


def test_a_half_line_carries_no_name() -> None:
    line = article(explanation("a", None), "a")
    assert article_name(line[:-20]) is None
    assert article_name("other\n") is None


@given(st.text(min_size=1, max_size=300))
def test_stems_are_file_names_everywhere(path: str) -> None:
    stem = safe_stem(path)
    assert stem
    assert not set(stem) & set('/\\:*?"<>|\0\n')
    assert len(stem.encode()) <= 121
    assert not stem.startswith(".")
    assert not stem.endswith((".", " "))


@pytest.mark.parametrize(
    ("path", "stem"), [("a/b.png", "b"), ("CON.png", "CON_"), ("..", "image"), ("x<y>.jpg", "x_y_"), ("é.png", "é")]
)
def test_stems(path: str, stem: str) -> None:
    assert safe_stem(path) == stem


def test_names_differ_in_more_than_case_and_repeat_in_every_run() -> None:
    paths = ["a/x.png", "b/x.png", "c/X.png", "x.jpg"]
    first, second = ([names.give(path) for path in paths] for names in (Names(), Names()))
    assert first == second
    assert first[0] == "x"
    assert len({name.casefold() for name in first}) == 4


def test_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    write_file(tmp_path / "a", [b"one", b"two"], durable=True)
    assert (tmp_path / "a").read_bytes() == b"onetwo"

    def failing() -> object:
        yield b"half"
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        write_file(tmp_path / "a", failing())  # type: ignore[arg-type]
    assert (tmp_path / "a").read_bytes() == b"onetwo"
    assert os.listdir(tmp_path) == ["a"]
    with pytest.raises(OutputError, match="it is a file, expected a folder"):
        make_folder(tmp_path / "a")


def test_a_half_line_is_cut_off_and_lines_go_on(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\n" + b"x" * 100_000)
    assert list(read_lines(path)) == [b"one\n", b"two\n"]
    with LineFile(path) as lines:
        lines.append(b"three\n")
    assert path.read_bytes() == b"one\ntwo\nthree\n"
    path.write_bytes(b"nothing whole")
    LineFile(path).close()
    assert path.read_bytes() == b""
