"""Are sufficient areas numbers, small, and better than random ones? Chosen by measured and by predicted retention.

    python -m benchmarks.truth.areas [--networks demo,boards] [--pictures 30]
    python -m benchmarks.truth.areas --networks lite0 --photographs FOLDER
    python -m benchmarks.truth.areas --networks vgg --explainer FILE
    python -m benchmarks.truth.areas --share .9 --groups shown

Of unseen pictures, three groups of filters: those that `explain` shows by default, four drawn among the 60 strongest
(as `evaluate` draws), and four drawn among all with a peak above 0. Each area is chosen by `Explainer`; then r and what
four random areas of that size keep, drawn anew and not those that the choice looked at, are measured under blur, as
`explain` measures, and under inpaint, which nothing was trained or chosen on. `--share` and
`--least` try other constants of the rule, `--method` other masks. Writes docs/areas.json.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from fsagn_onnx.data.images import list_images, read_image
from fsagn_onnx.methods import engine_for
from fsagn_onnx.model import load_model
from fsagn_onnx.runtime import Explainer, FilterExplanation, Verifier, area
from fsagn_onnx.runtime.feature_maps import FeatureMaps, draw_filters
from fsagn_onnx.runtime.masks import Mask, area_rank, common_grid, pixel_mask, to_common_granularity

ROOT = Path(__file__).resolve().parents[2]
INFILLS = ("blur", "inpaint")
DRAWN = 4
RANDOM_SEEDS = (101, 102, 103, 104)
LEAD = 0.1
"""By so much an area has to keep more than a random one."""
HOLD_OUT_EVERY = 5
GROUPS = ("shown", "strong", "any active")


class Found(NamedTuple):
    """One filter of one picture: its area, and r and random r there under each infill."""

    area: float
    kept: tuple[float, ...]
    random: tuple[float, ...]


def pictures_of(name: str, count: int, out: Path, photographs: Path | None) -> list[Path]:
    """Pictures that neither network nor explainer has seen."""
    if name == "boards":
        found = [path for path in list_images([ROOT / "examples" / "pcb"]) if path.parent.name != "good"]
    elif name == "lite0":
        if photographs is None:
            raise click.UsageError("photographs are needed for lite0: --photographs FOLDER")
        found = sorted(list_images([photographs]), key=lambda path: path.name)[::HOLD_OUT_EVERY]
    else:
        from fsagn_onnx.testing.synthetic import write_folder

        folder = out / f"test-{count}"
        if not (folder / "names.json").exists():
            write_folder(folder, "test", count)
        found = list(list_images([folder / "images"]))
    places = np.linspace(0, len(found) - 1, min(count, len(found))).astype(int)
    return [found[place] for place in places]


def files_of(name: str, explainer: Path | None, out: Path) -> tuple[Path, Path]:
    """Model and explainer."""
    if name == "lite0":
        from benchmarks.networks import lite0

        model, shipped = lite0(out)
    elif name == "boards":
        model, shipped = ROOT / "models" / "boards_cnn.onnx", ROOT / "models" / "boards_explainer.onnx"
    else:
        from benchmarks.trained_networks import default_subject

        model, shipped = default_subject(name, explainer)
    return model, explainer or shipped


def random_areas(size: tuple[int, int], share: float) -> list[Mask]:
    """Areas of a size at the common granularity that no choice has looked at."""
    fields = [np.random.default_rng(seed).random(common_grid(size), dtype=np.float32) for seed in RANDOM_SEEDS]
    return [pixel_mask(area_rank(to_common_granularity(field, size)), share, size) for field in fields]


def measured(
    meters: Sequence[Verifier], pixels: NDArray[np.uint8], found: FilterExplanation, size: tuple[int, int]
) -> Found:
    if not found.suffices:
        return Found(0.0, (), ())
    masks = [pixel_mask(found.area_rank, found.area, size), *random_areas(size, found.area)]
    rows = [meter.measure(pixels, masks, [found.id] * len(masks)) for meter in meters]
    return Found(found.area, tuple(float(r[0]) for r in rows), tuple(float(r[1:].mean()) for r in rows))


def figures(found: Sequence[Found]) -> dict[str, Any]:
    """Shares and means over filters of all pictures."""
    there = [one for one in found if one.area > 0]
    kept, random = np.array([one.kept for one in there]), np.array([one.random for one in there])
    areas = np.array([one.area for one in there])
    row: dict[str, Any] = {"filters": len(found), "a number": round(len(there) / len(found), 4)}
    for place, infill in enumerate(INFILLS):
        lead = kept[:, place] - random[:, place]
        row[infill] = {
            "lead of .1": round(float((lead >= LEAD).mean()), 4),
            "keeps": round(float(kept[:, place].mean()), 4),
            "random keeps": round(float(random[:, place].mean()), 4),
        }
    row["area"] = {"median": round(float(np.median(areas)), 4), "mean": round(float(areas.mean()), 4)}
    row["over .3"] = round(float((areas > 0.3).mean()), 4)
    return row


def look(
    explainer: Explainer, proto: Any, pictures: Sequence[Path], wanted: Sequence[str], ways: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Group of filters -> how areas were chosen -> figures."""
    about = explainer.metadata
    size = about.input.size
    found: dict[tuple[str, str], list[Found]] = {}
    maps = FeatureMaps(proto, about.input, about.layer, "cpu", 1)
    meters = [
        Verifier(proto, about.layer, about.input, infill_kind=kind, providers="cpu", threads=1, batch_size=25)
        for kind in INFILLS
    ]
    for number, path in enumerate(pictures):
        pixels = about.input.fit(read_image(path))[0]
        peaks = maps.of_pixels(pixels[None])[0]
        rng = np.random.default_rng([0, number])
        alive = np.flatnonzero(peaks.max(axis=(1, 2)) > 0)
        groups: dict[str, Any] = {
            "shown": None,
            "strong": draw_filters(peaks, DRAWN, rng).tolist(),
            "any active": rng.choice(alive, min(DRAWN, len(alive)), replace=False).tolist(),
        }
        for group in wanted:
            filters = groups[group]
            for how in ways:
                (one,) = explainer.explain(path, filters, verify=how == "measured")
                active = [filter for filter in one.filters if filter.active]
                found.setdefault((group, how), []).extend(measured(meters, pixels, each, size) for each in active)
        click.echo(f"\r{number + 1}/{len(pictures)}", nl=False, err=True)
    click.echo(err=True)
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for (group, how), values in found.items():
        rows.setdefault(group, {})[how] = figures(values)
    return rows


def table(rows: dict[str, dict[str, dict[str, Any]]]) -> str:
    lines = [
        "| filters | chosen by | a number | lead of .1 | area | over .3 | keeps | random | inpaint: lead of .1 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for group, ways in rows.items():
        for how, row in ways.items():
            blur, other = row["blur"], row["inpaint"]
            cells = (row["a number"], blur["lead of .1"], row["area"]["median"], row["over .3"])
            more = (blur["keeps"], blur["random keeps"], other["lead of .1"])
            lines.append(f"| {group} ({row['filters']}) | {how} | {' | '.join(f'{x:.3f}' for x in (*cells, *more))} |")
    return "\n".join(lines)


@click.command()
@click.option("--networks", default="demo,boards", show_default=True, help="Of demo, boards, vgg, resnet, lite0.")
@click.option("--pictures", "count", default=30, show_default=True)
@click.option("--photographs", type=click.Path(path_type=Path), help="For lite0; every fifth is looked at.")
@click.option("--explainer", type=click.Path(path_type=Path), help="Of the one network that is named.")
@click.option("--share", type=float, help="Of the largest lead; .8 unless told.")
@click.option("--least", type=float, help="Lead that there must be; .05 unless told.")
@click.option("--method", help="Explain with a training-free method instead.")
@click.option("--ways", default="measured,predicted", show_default=True, help="How areas are chosen.")
@click.option("--groups", default=",".join(GROUPS), show_default=True, help="Of filters.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/areas"), show_default=True)
@click.option("--write", type=click.Path(path_type=Path), default=Path("docs/areas.json"), show_default=True)
def main(
    networks: str,
    count: int,
    photographs: Path | None,
    explainer: Path | None,
    share: float | None,
    least: float | None,
    method: str | None,
    ways: str,
    groups: str,
    out: Path,
    write: Path,
) -> None:
    cv2.setNumThreads(1)
    tried = {"SHARE": share, "LEAST_LEAD": least}
    for constant, value in tried.items():
        if value is not None:
            setattr(area, constant, value)
    result: dict[str, Any] = json.loads(write.read_text()) if write.exists() else {}
    for name in networks.split(","):
        model, path = files_of(name, explainer, out)
        pictures = pictures_of(name, count, out, photographs)
        loaded = load_model(model)
        engine = path if method is None else engine_for(loaded, None, method, providers="cpu", threads=1)
        with Explainer(engine, providers="cpu", threads=1) as opened:
            rows = look(opened, loaded.proto, pictures, groups.split(","), ways.split(","))
        options = {"share": share, "least": least, "method": method}
        told = "".join(f" --{word} {value}" for word, value in options.items() if value is not None)
        result[name + told] = {
            "pictures": len(pictures), "command": f"--networks {name} --pictures {count}{told}", "rows": rows
        }  # fmt: skip
        print(f"\n{name}{told}: {len(pictures)} pictures\n\n{table(rows)}", flush=True)
        write.parent.mkdir(parents=True, exist_ok=True)
        write.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
