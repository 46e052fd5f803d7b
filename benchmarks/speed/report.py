"""How long the report of 10,000 images takes to open, in a headless Chromium.

    python -m benchmarks.speed.report [--images 10000] [--times 5]

The page that `explain` writes: 100 rendered pictures, explained by the demo explainer, 5 filters each, repeated under
other names. Open is: from the navigation till the area of the first image is painted; then a search for one image till
it is painted. Checks that search finds the image. Needs chromium and the extra `dev`. Besides the times it prints the
CPU seconds of the browser, which other work on the machine changes less. Writes build/bench_report.json.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from fsagn_onnx.explanations.page import DETAILED, SMALL, Facts, article, page
from fsagn_onnx.runtime import Explainer
from fsagn_onnx.testing.synthetic import SyntheticParts

BOUND = 3.0


def write_report(path: Path, images: int) -> Path:
    pictures = [sample.image for sample in SyntheticParts("test", 100)]
    with Explainer("models/demo_explainer.onnx", providers="cpu", threads=1) as explainer:
        explained = [replace(item, name="photo-NUMBER") for item in explainer.explain(pictures, filters="top:5")]
    full, small = ([article(item, "photo-NUMBER", *detail) for item in explained] for detail in ((), (SMALL,)))
    lines = ((full if i < DETAILED else small)[i % 100].replace("NUMBER", str(i)) for i in range(images))
    facts = Facts("demo_explainer.onnx", "block6", "fsagn-onnx", {"filters": "top:5"}, images, images, [], 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(page(facts, lines)), encoding="utf-8")
    return path


def cpu_seconds(profile: Path) -> float:
    """CPU seconds of all processes of the browser so far: those that name its profile folder."""
    ticks = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(profile.name) in (process / "cmdline").read_bytes():
                ticks += sum(map(int, (process / "stat").read_text().rsplit(")", 1)[1].split()[11:13]))
        except OSError:
            continue  # it has ended
    return ticks / os.sysconf("SC_CLK_TCK")


def painted(tab: Any, started: float) -> float:
    while not tab.evaluate("Boolean(document.querySelector('article canvas')?.dataset.kept)"):
        tab.wait_for_timeout(5)
    return time.perf_counter() - started


def opened(play: Any, browser: str, path: Path, profile: Path, last: int) -> tuple[float, float, float]:
    """Seconds to open, to search, and CPU seconds of opening."""
    arguments = ["--no-sandbox", "--disable-gpu"]
    context = play.chromium.launch_persistent_context(profile, executable_path=browser, args=arguments)
    tab = context.new_page()
    before, started = cpu_seconds(profile), time.perf_counter()
    tab.goto(path.resolve().as_uri())
    opening = painted(tab, started)
    cpu = cpu_seconds(profile) - before
    started = time.perf_counter()
    tab.locator("input[type=search]").fill(f"photo-{last}")
    searching = painted(tab, started)
    assert tab.locator("article h2").all_text_contents() == [f"photo-{last}"]
    context.close()
    return opening, searching, cpu


@click.command()
@click.option("--images", default=10_000, show_default=True)
@click.option("--times", default=5, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench_report"), show_default=True)
def main(images: int, times: int, out: Path) -> None:
    from playwright.sync_api import sync_playwright

    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise click.ClickException("no chromium in PATH: apt-get install chromium")
    path = write_report(out / "report.html", images)
    with sync_playwright() as play:
        runs = [opened(play, browser, path, out / f"profile-{os.getpid()}-{n}", images - 1) for n in range(times)]
    for n in range(times):
        shutil.rmtree(out / f"profile-{os.getpid()}-{n}", ignore_errors=True)
    opening, searching, cpu = (sorted(values) for values in zip(*runs, strict=True))
    result = {
        "images": images,
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "open_seconds": [round(value, 2) for value in opening],
        "open_seconds_median": round(statistics.median(opening), 2),
        "search_seconds_median": round(statistics.median(searching), 2),
        "browser_cpu_seconds_median": round(statistics.median(cpu), 2),
        "load": os.getloadavg()[0],
    }
    Path("build/bench_report.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    assert opening[0] < BOUND, f"{opening[0]:.1f} s at best"


if __name__ == "__main__":
    main()
