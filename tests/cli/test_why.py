"""`fsagn-onnx explain --why`: what a decision rests on, with a plain model and no torch, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fsagn_onnx.cli.explain import command
from fsagn_onnx.errors import FsagnError, GradientError, UsageError

ROOT = Path(__file__).resolve().parents[2]
BOARDS = ROOT / "models" / "boards_cnn.onnx"
SHORT = sorted((ROOT / "examples" / "pcb" / "short").glob("*.png"))[:2]
GOOD = sorted((ROOT / "examples" / "pcb" / "good").glob("*.png"))[:1]


def explain(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=True)


def lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "explanations.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_plain_model_says_why(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "names.json").write_text(json.dumps({number: f"part {number}" for number in range(200)}))
    result = explain(BOARDS, *SHORT, "--why", "--names", tmp_path / "names.json", "--out", out, "--threads", 1)
    assert result.exit_code == 0, result.output
    assert "evidence from" in result.stderr
    for line in lines(out):
        (evidence,) = line["evidence"]  # type: ignore[misc]
        assert evidence["class"] == line["predictions"][0]["index"]  # type: ignore[index]
        assert evidence["removed"]["asked"] <= evidence["score"] + 1e-3
        contributions = [found["contribution"] for found in line["filters"]]  # type: ignore[attr-defined]
        assert contributions == sorted(contributions, reverse=True)
        assert contributions[-1] > 0
        assert line["filters"][0]["part"].startswith("part ")  # type: ignore[index]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Why the model decided so" in page
    again = explain(BOARDS, *SHORT, "--why", "--names", tmp_path / "names.json", "--out", out, "--resume")
    assert again.exit_code == 0, again.output
    assert "2 explained" in again.output


def test_contributions_against_the_mean_are_an_option(tmp_path: Path) -> None:
    words = [*SHORT, "--no-measure", "--threads", 1]
    found = {}
    for kind in ("zero", "mean"):
        result = explain(BOARDS, *words, "--why", "--contributions", kind, "--out", tmp_path / kind)
        assert result.exit_code == 0, result.output
        assert ("each filter's mean over the first 2 pictures" in result.stderr) == (kind == "mean")
        found[kind] = [entry["contribution"] for entry in lines(tmp_path / kind)[0]["filters"]]  # type: ignore[attr-defined]
    assert found["zero"] != found["mean"]
    explainer = ROOT / "models" / "boards_explainer.onnx"
    for source, message in ((explainer, "holds no means of its filters"), (BOARDS, "only with --why")):
        result = explain(source, *words, "--contributions", "mean", "--out", tmp_path / "no")
        assert isinstance(result.exception, UsageError)
        assert message in str(result.exception)


def test_classes_are_asked_about_by_name(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = explain(
        BOARDS,
        *GOOD,
        "--why",
        "good,short",
        "--filters",
        "decisive:2,against:1",
        "--out",
        out,
        "--no-measure",
        "--threads",
        1,
    )
    assert result.exit_code == 0, result.output
    (line,) = lines(out)
    assert [found["label"] for found in line["evidence"]] == ["good", "short"]  # type: ignore[attr-defined]
    assert all(found["removed"] is None for found in line["evidence"])  # type: ignore[attr-defined]
    signs = [found["contribution"] > 0 for found in line["filters"]]  # type: ignore[attr-defined]
    assert signs == [True, True, False]
    assert "it rests on" not in result.output


@pytest.mark.parametrize(
    ("extra", "kind", "said"),
    [
        (("--why", "brok"), UsageError, "no class 'brok'"),
        (("--why", "99"), UsageError, "no class"),
        (("--why", "--method", "activation"), UsageError, "not with --why"),
        (("--why", "--scores", "none"), GradientError, "does not classify"),
    ],
)
def test_refused_in_one_line(tmp_path: Path, extra: tuple[str, ...], kind: type[FsagnError], said: str) -> None:
    result = explain(BOARDS, *SHORT, *extra, "--out", tmp_path / "out")
    assert isinstance(result.exception, kind), result.output
    assert said in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from fsagn_onnx.cli.main import main; "
        f"sys.argv = ['fsagn-onnx', 'explain', {str(BOARDS)!r}, {str(SHORT[0])!r}, '--why', '--out', "
        f"{str(tmp_path / 'out')!r}, '--threads', '1']; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    assert "support comes from filters" in done.stdout
