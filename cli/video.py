"""`fsagn-onnx video`: Draw the areas into a video, a camera's picture or an image sequence."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import (
    PATH,
    area_option,
    batch_size_option,
    classes_options,
    detections_option,
    json_option,
    labels_option,
    session_options,
)


@click.command()
@click.argument("explainer", type=PATH)
@click.argument("source")
@click.option("--out", type=PATH, required=True, help="The video: .mp4, .avi or .mkv.")
@click.option(
    "--why", is_flag=False, flag_value="top:1", metavar="[CLASS,...]",
    help="Draw what the decision for a class rests on (its answer unless told); with an explainer that knows classes "
    "the default.",
)  # fmt: skip
@click.option(
    "--filters", help="decisive:K, against:K, top:K, or ids like 3,17; six are drawn at most.  "
    "[default: decisive:3 or top:3]",
)  # fmt: skip
@area_option("frame")
@click.option("--start", type=click.IntRange(0), default=0, show_default=True, help="First frame.")
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Take each N-th frame.")
@click.option("--limit", type=click.IntRange(1), help="Take so many frames at most.")
@labels_option
@classes_options
@detections_option
@batch_size_option(4, "Frames")
@session_options
@json_option
def command(
    explainer: Path,
    source: str,
    out: Path,
    why: str | None,
    filters: str | None,
    area: str,
    start: int,
    every: int,
    limit: int | None,
    labels: Path | None,
    output: str | None,
    scores: str | None,
    detections: str | None,
    batch_size: int,
    threads: int | None,
    providers: str,
    as_json: bool,
) -> None:
    """Explain each frame of SOURCE: a video, a sequence like 'frames/%04d.png', or camera:0.

    With an explainer that knows classes, the area that the answer rests on is bright, and the answer stands above the
    filters that carry it. Rows, as in explanations.jsonl, go to the name of --out with the ending .jsonl. Ctrl-C
    leaves a whole video of the frames so far.
    """
    from rich.console import Console

    from fsagn_onnx.runtime import Explainer
    from fsagn_onnx.runtime.video import FrameSource, explain_video

    waiting, video = Console(stderr=True), None
    with Explainer(
        explainer,
        providers=providers,
        threads=threads,
        output=output,
        scores=scores,
        labels=labels,
        detections=detections,
    ) as opened:
        clip = FrameSource(source, start, every, limit)
        classes = None if why is None else why.split(",")
        frames = explain_video(opened, clip, out, filters, area, batch_size, classes)
        try:
            with waiting.status("explaining") if waiting.is_terminal else waiting:
                for state in frames:
                    video = state
        except KeyboardInterrupt:
            frames.close()
            if video is not None:
                click.echo(
                    f"{out}: {video.frames} frames, up to {video.last}; the rest: --start and another --out", err=True
                )
            raise
        provider = opened.provider
    count = video.frames if video is not None else 0
    if as_json:
        rows = str(out.with_suffix(".jsonl"))
        click.echo(json.dumps({"video": str(out), "rows": rows, "frames": count, "provider": provider}))
        return
    click.echo(f"{out}: {count} frames, on {provider}\nrows      {out.with_suffix('.jsonl')}")
