"""The Triton repository: its config is one by Triton's own schema, and says what the file takes and gives."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format

from fsagn_onnx.cli.main import run
from fsagn_onnx.errors import ExplainerError, OutputError
from fsagn_onnx.server.triton import write_repository

MODELS = Path(__file__).resolve().parents[2] / "models"
EXPLAINER = MODELS / "demo_explainer.onnx"


def test_config_is_one_by_tritons_schema(tmp_path: Path) -> None:
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    folder = write_repository(EXPLAINER, tmp_path, name='a "quoted\\name" ä', max_batch=4)
    assert (folder / "1" / "model.onnx").read_bytes() == EXPLAINER.read_bytes()
    config = text_format.Parse((folder / "config.pbtxt").read_text(encoding="utf-8"), model_config.ModelConfig())
    assert config.name == folder.name
    assert config.platform == "onnxruntime_onnx"
    assert config.max_batch_size == 4
    graph = onnx.load(EXPLAINER).graph
    kinds = {onnx.TensorProto.FLOAT: model_config.TYPE_FP32, onnx.TensorProto.INT64: model_config.TYPE_INT64}
    for declared, ports in ((config.input, graph.input), (config.output, graph.output)):
        assert [port.name for port in declared] == [port.name for port in ports]
        for port, value in zip(declared, ports, strict=True):
            tensor = value.type.tensor_type
            assert port.data_type == kinds[tensor.elem_type]
            assert list(port.dims) == [side.dim_value or -1 for side in tensor.shape.dim][1:]
    about = json.loads(config.parameters["fsagn"].string_value)
    assert about["layer"] == config.parameters["layer"].string_value


def test_command_writes_a_repository_and_refuses_what_it_cannot(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["serve", str(EXPLAINER), "--triton", str(tmp_path / "r"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == str(tmp_path / "r" / "demo_explainer")
    with pytest.raises(OutputError, match="exists already"):
        write_repository(EXPLAINER, tmp_path / "r")
    with pytest.raises(ExplainerError, match="not an explainer"):
        write_repository(MODELS / "demo_cnn.onnx", tmp_path / "s")
    assert not (tmp_path / "s").exists()
