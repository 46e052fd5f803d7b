"""Every annotation layout, written here exactly as its tool writes it, gives the same parts; broken files one line."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fsagn_onnx.data.annotations import Annotations, ImageParts, open_annotations, read_labels
from fsagn_onnx.data.annotations.parts import cell_coverage
from fsagn_onnx.errors import AnnotationError
from fsagn_onnx.model.input_spec import InputSpec
from fsagn_onnx.testing.synthetic import SyntheticParts, write_folder

H, W = 30, 40
BOX = (10.0, 5.0, 22.0, 17.0)  # x0, y0, x1, y1


def box_mask() -> np.ndarray[Any, np.dtype[np.bool_]]:
    mask = np.zeros((H, W), dtype=bool)
    mask[5:17, 10:22] = True
    return mask


def corners() -> list[list[float]]:
    return [[10, 5], [22, 5], [22, 17], [10, 17]]


def png(pixels: np.ndarray[Any, Any]) -> bytes:
    return bytes(cv2.imencode(".png", pixels)[1].tobytes())


def json_file(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def coco(folder: Path, segmentation: object) -> Path:
    annotation = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [10, 5, 12, 12], "iscrowd": 0}
    if segmentation is not None:
        annotation["segmentation"] = segmentation
    return json_file(
        folder / "instances.json",
        {
            "images": [{"id": 7, "file_name": "photos/a.jpg", "height": H, "width": W}],
            "annotations": [annotation],
            "categories": [{"id": 3, "name": "wheel", "supercategory": "part"}],
        },
    )


def coco_polygon(folder: Path) -> Path:
    return coco(folder, [[value for corner in corners() for value in corner]])


def coco_runs(folder: Path) -> Path:
    flat = box_mask().T.ravel()
    changes = np.flatnonzero(np.diff(np.concatenate([[False], flat])))
    counts = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return coco(folder, {"size": [H, W], "counts": counts})


def coco_compressed(folder: Path) -> Path:
    from pycocotools import mask as rle

    encoded = rle.encode(np.asfortranarray(box_mask().astype(np.uint8)))
    return coco(folder, {"size": [H, W], "counts": encoded["counts"].decode()})


def coco_boxes(folder: Path) -> Path:
    return coco(folder, None)


def coco_panoptic(folder: Path) -> Path:
    number = 5 + 256 * 3 + 65536 * 2
    rgb = np.zeros((H, W, 3), dtype=np.uint8)
    rgb[box_mask()] = (5, 3, 2)
    path = json_file(
        folder / "panoptic.json",
        {
            "images": [{"id": 7, "file_name": "a.jpg", "height": H, "width": W}],
            "annotations": [{"image_id": 7, "file_name": "a.png", "segments_info": [{"id": number, "category_id": 3}]}],
            "categories": [{"id": 3, "name": "wheel", "isthing": 1}],
        },
    )
    (folder / "panoptic").mkdir()
    (folder / "panoptic" / "a.png").write_bytes(png(rgb[..., ::-1]))
    return path


def voc(folder: Path, *, parts: bool) -> Path:
    box = "<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>22</xmax><ymax>17</ymax></bndbox>"
    inner = f"<part><name>wheel</name>{box}</part>" if parts else ""
    name = "car" if parts else "wheel"
    (folder / "Annotations").mkdir()
    (folder / "Annotations" / "a.xml").write_text(
        f"<annotation><folder>VOC</folder><filename>a.jpg</filename><size><width>{W}</width><height>{H}</height>"
        f"<depth>3</depth></size><object><name>{name}</name>{box}{inner}</object></annotation>"
    )
    return folder


def voc_objects(folder: Path) -> Path:
    return voc(folder, parts=False)


def voc_parts(folder: Path) -> Path:
    return voc(folder, parts=True)


def voc_part_mat(folder: Path) -> Path:
    from scipy.io import savemat

    part = {"part_name": "wheel", "mask": box_mask().astype(np.uint8)}
    other = {"part_name": "door", "mask": np.zeros((H, W), np.uint8)}
    listed = np.array([part, other], dtype=object)
    thing = {"class": "car", "class_ind": 7.0, "mask": box_mask().astype(np.uint8), "parts": listed}
    (folder / "Annotations_Part").mkdir()
    target = folder / "Annotations_Part" / "a.mat"
    savemat(target, {"anno": {"imname": "a", "objects": thing}}, do_compression=True)
    return folder


def cub(folder: Path) -> Path:
    (folder / "parts").mkdir()
    (folder / "segmentations" / "001.Wheeler").mkdir(parents=True)
    (folder / "images.txt").write_text("1 001.Wheeler/a.jpg\n2 001.Wheeler/b.jpg\n")
    (folder / "classes.txt").write_text("1 001.Wheeler\n")
    (folder / "image_class_labels.txt").write_text("1 1\n2 1\n")
    (folder / "bounding_boxes.txt").write_text("1 10.0 5.0 12.0 12.0\n2 0.0 0.0 4.0 4.0\n")
    (folder / "parts" / "parts.txt").write_text("1 left wheel\n2 tail\n")
    (folder / "parts" / "part_locs.txt").write_text("1 1 16.0 11.0 1\n1 2 0.0 0.0 0\n2 1 3.0 3.0 1\n2 2 1.0 1.0 1\n")
    (folder / "segmentations" / "001.Wheeler" / "a.png").write_bytes(png(255 * box_mask().astype(np.uint8)))
    return folder


def broden(folder: Path) -> Path:
    (folder / "images").mkdir()
    rgb = np.zeros((H, W, 3), dtype=np.uint8)
    rgb[box_mask()] = (44, 1, 0)  # number 300
    (folder / "images" / "a_part.png").write_bytes(png(rgb[..., ::-1]))
    (folder / "label.csv").write_text("number,name,category,frequency\n300,wheel,part(1),1\n4,street,scene(1),1\n")
    (folder / "index.csv").write_text(
        f"image,split,ih,iw,sh,sw,color,object,part,material,scene,texture\na.jpg,val,{H},{W},{H},{W},,,a_part.png,,4,\n"
    )
    return folder


def labelme(folder: Path) -> Path:
    shapes = [{"label": "wheel", "points": corners(), "group_id": None, "shape_type": "polygon", "flags": {}}]
    for name, image in (("a.json", "a.jpg"), ("b.json", "b.jpg")):
        document = {"version": "5.4", "flags": {}, "shapes": shapes, "imagePath": image, "imageData": None}
        json_file(folder / name, {**document, "imageHeight": H, "imageWidth": W})
    return folder


def labelme_mask(folder: Path) -> Path:
    inner = base64.b64encode(png(np.full((12, 12), 255, np.uint8))).decode()
    shape = {"label": "wheel", "points": [[10, 5], [21, 16]], "shape_type": "mask", "mask": inner}
    members = {"shapes": [shape], "imagePath": "..\\photos\\a.jpg", "imageHeight": H, "imageWidth": W}
    return json_file(folder / "a.json", members)


def cvat(folder: Path, shape: str) -> Path:
    path = folder / "annotations.xml"
    path.write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><image id="0" name="photos/a.jpg" '
        f'width="{W}" height="{H}">{shape}<tag label="car" source="manual"></tag></image></annotations>'
    )
    return path


def cvat_box(folder: Path) -> Path:
    return cvat(folder, '<box label="wheel" occluded="0" xtl="10.0" ytl="5.0" xbr="22.0" ybr="17.0"></box>')


def cvat_polygon(folder: Path) -> Path:
    points = ";".join(f"{x:.1f},{y:.1f}" for x, y in corners())
    return cvat(folder, f'<polygon label="wheel" points="{points}"></polygon>')


def cvat_mask(folder: Path) -> Path:
    return cvat(folder, '<mask label="wheel" rle="0, 144" left="10" top="5" width="12" height="12"></mask>')


def studio(folder: Path, kind: str, value: dict[str, Any]) -> Path:
    results = [
        {"type": kind, "value": {**value, kind: ["wheel"]}, "original_width": W, "original_height": H},
        {"type": "choices", "value": {"choices": ["car"]}},
    ]
    task = {"id": 1, "data": {"image": "/data/upload/1/1a2b3c4d-a.jpg"}, "annotations": [{"result": results}]}
    return json_file(folder / "project.json", [task])


def studio_box(folder: Path) -> Path:
    place = {"x": 25.0, "y": 100 * 5 / H, "width": 30.0, "height": 40.0, "rotation": 0}
    return studio(folder, "rectanglelabels", place)


def studio_polygon(folder: Path) -> Path:
    return studio(folder, "polygonlabels", {"points": [[100 * x / W, 100 * y / H] for x, y in corners()]})


def studio_brush(folder: Path) -> Path:
    """Label Studio's bit stream, here as runs of one byte each: lists of 16 words."""
    alpha = np.zeros((H, W, 4), dtype=np.uint8)
    alpha[box_mask()] = 255
    words = alpha.ravel()
    bits = f"{len(words):032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (1, 2, 4, 8))
    for start in range(0, len(words), 16):
        run = words[start : start + 16]
        bits += "0" + "10" + f"{len(run) - 1:04b}" + "".join(f"{word:08b}" for word in run)
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    return studio(folder, "brushlabels", {"format": "rle", "rle": rle})


def masks(folder: Path) -> Path:
    (folder / "masks").mkdir()
    (folder / "masks" / "a.png").write_bytes(png(4 * box_mask().astype(np.uint8)))
    (folder / "names.txt").write_text("4 wheel\n")
    return folder


def palette_masks(folder: Path) -> Path:
    from PIL import Image

    picture = Image.fromarray(box_mask().astype(np.uint8), mode=None).convert("P")
    picture.putpalette([0, 0, 0, 200, 10, 10])
    picture.save(folder / "a.png")
    (folder / "names.json").write_text(json.dumps(["wheel"]))
    return folder


def table(folder: Path) -> Path:
    (folder / "boxes.csv").write_text("file,part,x0,y0,x1,y1\na.jpg,wheel,10,5,22,17\n")
    return folder / "boxes.csv"


LAYOUTS: list[Callable[[Path], Path]] = [
    coco_polygon, coco_runs, coco_compressed, coco_boxes, coco_panoptic, voc_objects, voc_parts, voc_part_mat, broden,
    labelme, labelme_mask, cvat_box, cvat_polygon, cvat_mask, studio_box, studio_polygon, studio_brush, masks,
    palette_masks, table,
]  # fmt: skip


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_every_layout_gives_the_same_part(write: Callable[[Path], Path], tmp_path: Path) -> None:
    annotations = open_annotations(write(tmp_path))
    assert [name for name in annotations.names if name.endswith("wheel")]
    found = annotations.find(Path("somewhere") / "photos" / "a.jpg")
    assert found is not None
    part = next(part for part in found.parts if part.name.endswith("wheel"))
    pixels = part.pixels((H, W))
    union = (pixels | box_mask()).sum()
    assert (pixels & box_mask()).sum() / union > 0.84, f"{pixels.sum()} pixels"  # outlines of polygons differ
    if "polygon" not in write.__name__ and write is not labelme:
        np.testing.assert_array_equal(pixels, box_mask())
    assert annotations.find("photos/unknown.jpg") is None


def test_cub_gives_points_the_whole_bird_and_classes(tmp_path: Path) -> None:
    annotations = open_annotations(cub(tmp_path))
    assert annotations.names == ("left wheel", "tail", "whole bird")
    found = annotations.find("images/001.Wheeler/a.jpg")
    assert found is not None
    assert found.label == "001.Wheeler"
    assert [(part.name, part.kind) for part in found.parts] == [("left wheel", "point"), ("whole bird", "mask")]
    assert found.parts[0].centre((H, W)) == (16.0, 11.0)
    disc = found.parts[0].pixels((H, W))
    assert 2 <= disc.sum() <= 16
    assert disc[10, 15]
    np.testing.assert_array_equal(found.parts[1].pixels((H, W)), box_mask())
    second = annotations.find("b.jpg")
    assert second is not None
    assert [part.kind for part in second.parts] == ["point", "point", "box"]


def test_classes_come_with_the_annotations(tmp_path: Path) -> None:
    for number, (write, label) in enumerate(
        [(voc_parts, "car"), (voc_part_mat, "car"), (broden, "street"), (cvat_box, "car"), (studio_box, "car")]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = open_annotations(write(folder)).find("a.jpg")
        assert found is not None
        assert found.label == label


def test_keypoints_points_circles_and_ellipses(tmp_path: Path) -> None:
    path = coco(tmp_path, None)
    members = json.loads(path.read_text())
    members["categories"][0]["keypoints"] = ["hub", "rim"]
    members["annotations"][0]["keypoints"] = [16, 11, 2, 0, 0, 0]
    found = open_annotations(json_file(path, members)).find("a.jpg")
    assert found is not None
    assert [(part.name, part.point) for part in found.parts] == [("wheel hub", (16.0, 11.0))]
    shapes = [
        {"label": "hub", "points": [[16, 11]], "shape_type": "point"},
        {"label": "rim", "points": [[16, 11], [16, 16]], "shape_type": "circle"},
    ]
    members = {"shapes": shapes, "imagePath": "a.jpg", "imageHeight": H, "imageWidth": W}
    circles = open_annotations(json_file(tmp_path / "labelme.json", members)).find("a.jpg")
    assert circles is not None
    assert circles.parts[1].pixels((H, W)).sum() == pytest.approx(np.pi * 25, rel=0.1)
    ellipse = (
        '<ellipse label="rim" cx="16" cy="11" rx="8" ry="4"></ellipse><points label="hub" points="1,2;3,4"></points>'
    )
    shapes_found = open_annotations(cvat(tmp_path, ellipse)).find("a.jpg")
    assert shapes_found is not None
    assert shapes_found.parts[0].pixels((H, W)).sum() == pytest.approx(np.pi * 32, rel=0.1)
    assert [part.point for part in shapes_found.parts[1:]] == [(1.0, 2.0), (3.0, 4.0)]


def test_the_synthetic_folder_gives_masks_classes_and_seeds(tmp_path: Path) -> None:
    write_folder(tmp_path, "val", 3)
    annotations = open_annotations(tmp_path)
    sample = SyntheticParts("val", 3)[2]
    found = annotations.find(tmp_path / "images" / "val-00002.png")
    assert found is not None
    assert (found.label, found.seed) == ("comet", sample.seed)
    for part in found.parts:
        np.testing.assert_array_equal(part.pixels((128, 128)), sample.parts[part.name])


def test_images_are_matched_by_the_end_of_their_path(tmp_path: Path) -> None:
    def reader(label: str) -> Callable[[], ImageParts]:
        return lambda: ImageParts((), label=label)

    both = Annotations(tmp_path, "test", ["p"], {"x/a.jpg": reader("x"), "y/a.jpg": reader("y"), "b.png": reader("b")})
    assert both.find("/data/y/a.jpg") and both.find("/data/y/a.jpg").label == "y"  # type: ignore[union-attr]  # noqa: PT018
    assert both.find("c/b.jpg") is not None
    with pytest.raises(AnnotationError, match="both fit"):
        both.find("/data/z/a.jpg")


def test_coverage_is_the_share_of_each_cell() -> None:
    spec = InputSpec("x", "NCHW", "RGB", (32, 32), 1.0, (0.0,) * 3, (1.0,) * 3, "crop:1.0")
    geometry = spec.fit(np.zeros((64, 96, 3), np.uint8))[1]  # the central 64 x 64 square
    mask = np.zeros((64, 96), dtype=bool)
    mask[:32, 16:32] = True  # the upper left quarter of the square, half as wide
    cells = cell_coverage(mask[None], geometry, (4, 4))[0]
    np.testing.assert_allclose(cells[:2, 0], 1)
    np.testing.assert_allclose(cells[2:], 0)
    assert cells.sum() == pytest.approx(16 * mask[:, 16:80].mean())
    odd = cell_coverage(np.stack([mask, ~mask]), geometry, (5, 3))
    assert odd.shape == (2, 5, 3)
    np.testing.assert_allclose(odd.sum(axis=0), 1, atol=1e-6)
    letterbox = InputSpec("x", "NCHW", "RGB", (32, 32), 1.0, (0.0,) * 3, (1.0,) * 3, "letterbox:0")
    boxed = cell_coverage(
        np.ones((1, 64, 96), dtype=bool), letterbox.fit(np.zeros((64, 96, 3), np.uint8))[1], (32, 32)
    )[0]
    assert boxed.sum() == pytest.approx(32 * round(32 * 64 / 96))


def test_labels_from_csv_json_and_folders(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,label\na.jpg,car\n")
    assert read_labels(str(tmp_path / "labels.csv")).find("x/a.jpg") == "car"
    assert read_labels(str(json_file(tmp_path / "labels.json", {"a.jpg": 3}))).find("a.jpg") == "3"
    assert read_labels("folders").find("photos/car/a.jpg") == "car"


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing there": (lambda f: f / "none.json", "no such file"),
    "empty folder": (lambda f: f, "no part annotations of a known layout"),
    "broken JSON": (lambda f: (f / "a.json").write_text('{"images": [') and f / "a.json", "broken JSON"),
    "other JSON": (lambda f: json_file(f / "a.json", {"hello": 1}), "known layout"),
    "no annotations": (
        lambda f: json_file(f / "a.json", {"images": [], "annotations": [], "categories": []}),
        "without",
    ),
    "images no list": (lambda f: json_file(f / "a.json", {"images": 3, "annotations": []}), "'images' must be list"),
    "broken XML": (lambda f: (f / "a.xml").write_text("<annotation>") and f / "a.xml", "broken XML"),
    "entities": (lambda f: (f / "a.xml").write_text("<!DOCTYPE a [<!ENTITY b 'c'>]><a/>") and f / "a.xml", "entities"),
    "other XML": (lambda f: (f / "a.xml").write_text("<svg/>") and f / "a.xml", "expected <annotation>"),
    "no box": (
        lambda f: (f / "a.xml").write_text("<annotation><object><name>a</name></object></annotation>") and f / "a.xml",
        "no <bndbox>",
    ),
    "no MATLAB": (lambda f: (f / "a.mat").write_bytes(b"0" * 300) and f / "a.mat", "no MATLAB file"),
    "MATLAB 7.3": (lambda f: (f / "a.mat").write_bytes(b"\x89HDF\r\n\x1a\n") and f / "a.mat", "7.3"),
    "half of CUB": (lambda f: (f / "images.txt").write_text("1 a.jpg\n") and f, "parts.txt: cannot be read"),
    "half of Broden": (lambda f: (f / "index.csv").write_text("image,ih,iw\n") and f, "label.csv: cannot be read"),
    "wrong columns": (lambda f: (f / "a.csv").write_text("image,label\n1,2\n") and f / "a.csv", "lacks file, part"),
    "no number": (
        lambda f: (f / "a.csv").write_text("file,part,x,y\na,b,1,two\n") and f / "a.csv",
        "a.csv:2: expected a",
    ),
    "short row": (lambda f: (f / "a.csv").write_text("file,part,x,y\na\n") and f / "a.csv", "fewer fields"),
    "no task": (lambda f: json_file(f / "a.json", [{"data": {}}]), "names no image"),
    "not UTF-8": (lambda f: (f / "a.json").write_bytes(b"\xff{}") and f / "a.json", "UTF-8"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_one_line(name: str, tmp_path: Path) -> None:
    make, message = BROKEN[name]
    with pytest.raises(AnnotationError) as caught:
        open_annotations(str(make(tmp_path)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hostile_contents_are_refused_before_anything_large_is_made(tmp_path: Path) -> None:
    huge = coco(tmp_path, {"size": [H, W], "counts": "o" * 8})
    with pytest.raises(AnnotationError, match=r"run lengths"):
        open_annotations(huge).find("a.jpg")
    members = json.loads(huge.read_text())
    members["images"][0]["height"] = 10**9
    with pytest.raises(AnnotationError, match="height and width"):
        open_annotations(json_file(huge, members)).find("a.jpg")
    for counts in ([H * W + 1], [-5, H * W + 5], [1, "x"]):
        with pytest.raises(AnnotationError, match=r"run lengths|expected a number"):
            open_annotations(coco(tmp_path, {"size": [H, W], "counts": counts})).find("a.jpg")
    with pytest.raises(AnnotationError, match="polygon"):
        open_annotations(coco(tmp_path, [[1, 2, 3]])).find("a.jpg")
    folder = masks(tmp_path)
    (folder / "masks" / "a.png").write_bytes((folder / "masks" / "a.png").read_bytes()[:60])
    with pytest.raises(AnnotationError, match="broken"):
        open_annotations(folder).find("a.jpg")
    (folder / "masks" / "a.png").write_bytes(png(np.full((H, W), 9, np.uint8)))
    with pytest.raises(AnnotationError, match="number 9 has no name"):
        open_annotations(folder).find("a.jpg")


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_labels_may_come_from_a_spreadsheet(mark: str, encoding: str, tmp_path: Path) -> None:
    text = f"file{mark}label\r\na.png{mark}0\r\nb.png{mark}grün\r\n"
    (tmp_path / "labels.csv").write_text(text, encoding=encoding, newline="")
    labels = read_labels(str(tmp_path / "labels.csv"))
    assert (labels.find("x/a.png"), labels.find("b.png")) == ("0", "grün")


def test_a_field_without_an_end_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text('file,label\n"' + "a" * 200_000, encoding="utf-8")
    with pytest.raises(AnnotationError, match="broken CSV"):
        read_labels(str(tmp_path / "labels.csv"))
