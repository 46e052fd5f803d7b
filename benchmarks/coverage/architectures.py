"""Networks of torchvision and timm, with random weights and batch-norm statistics far from where they start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fsagn_onnx.conversion.parity import probe_images

CLASSES = 10


@dataclass(frozen=True)
class Architecture:
    """One network.

    Attributes:
        name: as timm or torchvision knows it.
        family: what it is grouped under in the table.
        source: ``timm``, ``torchvision`` or ``torchvision.features`` (its convolutions and one linear layer: the
            classifiers of VGG alone hold 120 M parameters).
        size: edge of the input; small where the network allows it.
    """

    name: str
    family: str
    source: str
    size: int

    @property
    def cheap(self) -> bool:
        """Whether a row takes about a second."""
        return self.name in _CHEAP


_TABLE = """
VGG            torchvision.features vgg11_bn:64 vgg16:64
AlexNet        torchvision alexnet:224
ResNet         torchvision resnet18:64 resnet50:64 resnext50_32x4d:64
ResNet         timm resnet10t:64 resnet26d:64 resnetaa50:64 resnetblur18:64 wide_resnet50_2:64
ResNetV2       timm resnetv2_50:64 resnetv2_50x1_bit:64
DenseNet       torchvision densenet121:64
DenseNet       timm densenetblur121d:64 rdnet_tiny:64
Inception      torchvision inception_v3:96
Inception      timm inception_v4:96 inception_resnet_v2:96 inception_next_atto:64
GoogLeNet      torchvision googlenet:64
SqueezeNet     torchvision squeezenet1_0:64 squeezenet1_1:64
ShuffleNet     torchvision shufflenet_v2_x0_5:64 shufflenet_v2_x1_0:64
MobileNet      torchvision mobilenet_v2:64 mobilenet_v3_small:64 mobilenet_v3_large:64
MobileNet      timm mobilenetv1_100:64 mobilenetv4_conv_small:64 mobilenetv4_hybrid_medium:64 mobilenetv3_small_050:64
MNASNet        torchvision mnasnet0_5:64 mnasnet1_0:64
MNASNet        timm spnasnet_100:64 fbnetc_100:64 hardcorenas_a:64 tinynet_e:64
MixNet         timm mixnet_s:64 tf_mixnet_s:64
EfficientNet   torchvision efficientnet_b0:64 efficientnet_v2_s:128
EfficientNet   timm tf_efficientnet_b0:64 tf_efficientnetv2_b0:64 efficientnet_es:64
EfficientNet-Lite timm efficientnet_lite0:64 tf_efficientnet_lite0:64
RegNet         torchvision regnet_y_400mf:64 regnet_x_400mf:64
RegNet         timm regnetz_005:64 gernet_s:64
ConvNeXt       torchvision convnext_tiny:64
ConvNeXt       timm convnext_atto:64 convnext_atto_ols:64 convnextv2_atto:64
NFNet          timm nf_regnet_b0:64 nf_ecaresnet26:64 eca_nfnet_l0:64 dm_nfnet_f0:64
ResNeSt        timm resnest14d:64
Res2Net        timm res2net50_14w_8s:64 res2next50:64
HRNet          timm hrnet_w18_small:64
CSPNet         timm cspresnet50:64 cspresnext50:64 cs3darknet_s:64
DarkNet        timm darknet17:64 darknet53:64 cspdarknet53:64
LCNet          timm lcnet_050:64
RepVGG         timm repvgg_a0:64
RepViT         timm repvit_m0_9:64
MobileOne      timm mobileone_s0:64
GhostNet       timm ghostnet_050:64 ghostnetv2_100:64 repghostnet_050:64
SENet          timm seresnet18:64 legacy_seresnet18:64 seresnext26t_32x4d:64
SKNet          timm skresnet18:64
ECA            timm ecaresnet26t:64 eca_resnext26ts:64
GCNet          timm gcresnext26ts:64
DLA            timm dla34:64 dla46_c:64
VoVNet         timm ese_vovnet19b_dw:64
DPN            timm dpn48b:64
Xception       timm xception41:96 legacy_xception:96
SelecSLS       timm selecsls42:64
ReXNet         timm rexnet_100:64
HGNet          timm hgnet_tiny:64 hgnetv2_b0:64
TResNet        timm tresnet_m:64
ConvMixer      timm convmixer_768_32:64
FasterNet      timm fasternet_t0:64
StarNet        timm starnet_s050:64
MambaOut       timm mambaout_femto:64
PoolFormer     timm poolformer_s12:64 poolformerv2_s12:64
BoTNet         timm botnet26t_256:256 eca_botnext26ts_256:256
HaloNet        timm halonet26t:256
LambdaNet      timm lambda_resnet26t:256
BAT            timm bat_resnext26ts:256
CoAtNet        timm coatnet_pico_rw_224:224 coatnext_nano_rw_224:224
MaxViT         timm maxvit_rmlp_pico_rw_256:256
FocalNet       timm focalnet_tiny_srf:64
EdgeNeXt       timm edgenext_xx_small:64
FastViT        timm fastvit_t8:64
EfficientViT   timm efficientvit_b0:64 efficientvit_m0:224
EfficientFormer timm efficientformer_l1:224 efficientformerv2_s0:224
MobileViT      timm mobilevit_xxs:64 mobilevitv2_050:64
PVT            timm pvt_v2_b0:64
DaViT          timm davit_tiny:224
LeViT          timm levit_conv_128s:224
Visformer      timm visformer_tiny:224
NextViT        timm nextvit_small:64
SHViT          timm shvit_s1:64
SwiftFormer    timm swiftformer_xs:224
TinyViT        timm tiny_vit_5m_224:224
"""
_CHEAP = frozenset({
    "resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v2", "mobilenet_v3_small", "mnasnet0_5", "lcnet_050",
    "mobilenetv3_small_050", "resnet10t", "tinynet_e", "convnext_atto", "repvgg_a0", "ghostnet_050", "seresnet18",
    "cs3darknet_s", "edgenext_xx_small", "starnet_s050", "dla46_c", "efficientnet_lite0", "mobileone_s0",
})  # fmt: skip


def _read(table: str) -> tuple[Architecture, ...]:
    found = []
    for line in table.strip().splitlines():
        family, source, *names = line.split()
        for entry in names:
            name, size = entry.split(":")
            found.append(Architecture(name, family, source, int(size)))
    return tuple(found)


ARCHITECTURES = _read(_TABLE)


def build(architecture: Architecture) -> nn.Module:
    """The network in eval mode, weights and statistics seeded."""
    torch.manual_seed(0)
    network = _made(architecture)
    spread(network, pictures(architecture.size))
    return network.eval()


def _made(architecture: Architecture) -> nn.Module:
    if architecture.source == "timm":
        import timm

        made: nn.Module = timm.create_model(architecture.name, pretrained=False, num_classes=CLASSES)
        return made
    from torchvision import models

    extra = {"aux_logits": False, "init_weights": True} if architecture.family in ("Inception", "GoogLeNet") else {}
    network: nn.Module = models.get_model(architecture.name, weights=None, **extra)
    if architecture.source == "torchvision.features":
        return nn.Sequential(network.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, CLASSES))
    return network


def pictures(size: int) -> Tensor:
    """Four normalised images (4, 3, size, size) of the kinds that parity is checked on, but not the same."""
    pixels = [image for seed in (1, 2) for image in probe_images((size, size), 3, seed).values()]
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float()
    mean, deviation = (torch.tensor(numbers).reshape(3, 1, 1) for numbers in (_MEAN, _DEVIATION))
    return (x - mean) / deviation


_MEAN, _DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def spread(network: nn.Module, images: Tensor) -> None:
    """Statistics as after training, moved at random: a wrong fold, or a wrong epsilon, shows.

    Each batch norm gets those of its own input, in the order in which they run, so that no activation grows from layer
    to layer and blows float32's rounding up. Scales and shifts of all norms are drawn, gains that start at 0 or 1e-6
    (layer scale, zero-initialised residual branches) too: they would hide what lies in their branch.
    """
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            small = float(parameter.detach().abs().max()) <= 1e-3
            if parameter.ndim == 1 and name in ("weight", "gamma", "scale", "g") and (small or _is_norm(module)):
                nn.init.uniform_(parameter, 0.7, 1.3)
            elif small and name in ("gamma", "gain", "layer_scale", "skipinit_gain", "beta"):
                nn.init.uniform_(parameter, 0.2, 0.6)
            elif name == "bias" and _is_norm(module):
                nn.init.normal_(parameter, 0, 0.1)
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    hooks = [norm.register_forward_pre_hook(_settle) for norm in norms]
    network.eval()
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()


def _settle(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Mean and variance of the input, moved by .1 deviations and a factor of .7 to 1.4."""
    x = inputs[0].transpose(0, 1).flatten(1)  # (C, N h w)
    variance = x.var(1, unbiased=False)
    # few images: a channel without any spread would be blown up
    variance = variance.clamp(min=0.1 * float(variance.mean()) + 1e-6)
    norm.running_mean.copy_(x.mean(1) + 0.1 * variance.sqrt() * torch.randn_like(variance))
    norm.running_var.copy_(variance * torch.empty_like(variance).uniform_(0.7, 1.4))


def _is_norm(module: nn.Module) -> bool:
    return "norm" in type(module).__name__.lower()
