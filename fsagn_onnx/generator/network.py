"""The mask generator: taps of a CNN (or an encoder of its own) -> one saliency map per asked filter.

    taps -> lateral 1x1 convs, top-down sums -> R shared maps S on the grid           (trunk, once per image)
    embedding, coarse features, own feature map -> hidden h_k per coarse cell         (head, per asked filter)
    q_k = W sum_cells share_k h_k, share_k = F_k / sum F_k;  d_k = w h_k
    s_k = Gaussian( alpha_k log(up(F_k / peak_k) + .01) + up(d_k) + sum_r q_kr S_r )
    once it is trained, what is particular to a filter is brought out (`particular`)

A filter asks with one query, made where it fires, which places of the image look alike; d_k moves the coarse map.
The last layers start at zero, so that step 0 equals the upsampled feature map.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..runtime.contract import WISHES
from .config import GeneratorConfig
from .encoder import Encoded, OwnEncoder, SharedEncoder
from .particular import NOTHING, SMALLEST_PEAK, picture_map, told_apart, voice_of_all
from .questions import Questions

LEARNING_SIGMA = 1.0
"""Of the Gaussian on the saliency while training, in cells: under narrower ones masks leak before they are right."""

FLOOR = 0.01
"""Added to the normalised feature map before its logarithm is taken."""


class Generated(NamedTuple):
    """What one pass of the generator gives for N images, K filters and J questions each.

    Attributes:
        filter_ids: ``(N, K)`` int64, the filters explained; -1 where there was none left to fill the slot with.
        filter_peaks: ``(N, K)`` peak activation.
        saliency: ``(N, K, h, w)`` on the grid, smoothed; higher is kept first.
        retention: ``(N, K, A)`` predicted retention at ``config.areas``, rising with the area, in [0, 1).
        evidence: ``(N, J, h, w)``, as ``saliency``, of the questions.
        kept: ``(N, J, A)``, as ``retention``: the predicted share of the decision that is kept.
    """

    filter_ids: Tensor
    filter_peaks: Tensor
    saliency: Tensor
    retention: Tensor
    evidence: Tensor
    kept: Tensor


class _Asked(NamedTuple):
    """What the head sees of K + J questions.

    Attributes:
        own: ``(N, K + J, fh, fw)`` own maps over their peaks.
        peaks: ``(N, K + J)`` of these.
        names: ``(N, K + J, hidden)`` embeddings.
        alpha: ``(N, K + J, 1)``.
    """

    own: Tensor
    peaks: Tensor
    names: Tensor
    alpha: Tensor

    def behind(self, own: Tensor, name: Tensor, alpha: Tensor) -> _Asked:
        """These behind one more question of every image, whose peak nobody asks for."""
        names = torch.cat((name.expand(len(own), 1, -1), self.names), dim=1)
        steepness = torch.cat((alpha.expand(len(own), 1, -1), self.alpha), dim=1)
        return _Asked(torch.cat((own, self.own), dim=1), self.peaks, names, steepness)


def resize(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, half-pixel centres, no antialiasing: onnx's ``linear`` + ``half_pixel``."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def resize_area(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Area average where maps shrink, bilinear where they do not."""
    if maps.shape[-2] > size[0] or maps.shape[-1] > size[1]:
        return F.interpolate(maps, size=size, mode="area")
    return resize(maps, size)


def smoothed(maps: Tensor, kernel: Tensor) -> Tensor:
    """Maps ``(N, K, h, w)`` through a ``(1, 1, 5, 5)`` kernel; the border is replicated."""
    flat = F.pad(maps.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="replicate")
    return F.conv2d(flat, kernel).view_as(maps)


def gaussian_kernel(sigma: float) -> Tensor:
    """A normalised ``(1, 1, 5, 5)`` Gaussian."""
    offsets = torch.arange(-2, 3, dtype=torch.float32)
    row = torch.exp(-offsets.square() / (2 * sigma * sigma))
    kernel = row[:, None] * row[None, :]
    return (kernel / kernel.sum())[None, None]


TIE = 2.0**-30
"""Weight of the spatial mean beside the peak when filters are ordered; in double precision it settles ties only."""


def choose_filters(feature_map: Tensor, filters: Tensor, contributions: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Fill -1 with the strongest filter not asked for by id, -2 with the most contributing one, -3 with the least.

    Strongest = highest peak; equal peaks are ordered by spatial mean, then by id. Both in one key, peak + 2^-30 mean
    in double precision: float32 peaks that differ do so by at least 2^-24 of their size. Equal contributions go
    by id.

    Args:
        feature_map: ``(N, C, h, w)``.
        filters: ``(N, K)`` int64 filter ids, -1, -2 or -3.
        contributions: ``(N, C)`` to the class that -2 and -3 are about; None: they stand for -1.

    Returns:
        ``filter_ids`` and ``filter_peaks``, ``(N, K)``; id -1 and peak 0 where no filter was left.
    """
    peaks, means = feature_map.amax(dim=(-2, -1)), feature_map.mean(dim=(-2, -1))
    keys = [peaks.double() + TIE * means.double()]
    if contributions is not None:
        keys += [contributions.double(), -contributions.double()]
    free = filters < 0
    asked = torch.zeros_like(peaks, dtype=torch.bool)
    asked = F.pad(asked, (0, 1)).scatter(1, torch.where(free, peaks.shape[1], filters), True)
    ids = filters
    for place, key in enumerate(keys):
        wanted = filters == WISHES[place] if len(keys) > 1 else free
        key = F.pad(key, (0, 1)).masked_fill(asked, -torch.inf)  # the last column stands for "nothing left"
        key[:, -1] = -torch.inf
        best, ranked = torch.sort(key, dim=1, descending=True, stable=True)
        ranked = torch.where(best > -torch.inf, ranked, -1)
        slot = wanted.long().cumsum(dim=1) - 1
        ids = torch.where(wanted, ranked.gather(1, slot.clamp(0, peaks.shape[1])), ids)
    chosen = peaks.gather(1, ids.clamp_min(0))
    return ids, torch.where(ids < 0, 0.0, chosen)


def kept_cells(areas: Sequence[float], cells: int) -> list[int]:
    """The number of cells, less one, that the mask of each area keeps on a grid: at least one cell."""
    return [max(1, round(area * cells)) - 1 for area in areas]


def energy_share(own: Tensor, saliency: Tensor, areas: Sequence[float]) -> Tensor:
    """The share of the squared feature map that lies under the mask of each area.

    Args:
        own: ``(N, K, fh, fw)`` the filters' feature maps, above 0.
        saliency: ``(N, K, h, w)`` on the grid; the most salient cells are kept first.
        areas: A areas.

    Returns:
        ``(N, K, A)`` in (0, 1], rising.
    """
    order = torch.sort(saliency.flatten(2), dim=2, descending=True, stable=True).indices
    energy = resize(own, (saliency.shape[-2], saliency.shape[-1])).square().flatten(2)
    kept = energy.gather(2, order).cumsum(dim=2)
    return kept[..., kept_cells(areas, kept.shape[-1])] / kept[..., -1:]


class Generator(nn.Module):
    """The mask generator of one conv layer: encoder, trunk, per-filter head, retention head.

    Source: Qian, Qiao and Xu, ICONIP 2018 (FSAGN); the amortised form follows Dabkowski & Gal 2017.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        width, maps, hidden = config.width, config.maps, config.hidden
        self.encoder = SharedEncoder(config) if config.encoder == "shared" else OwnEncoder(config)
        levels = self.encoder.channels
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in levels)
        self.spatial = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, groups=width) for _ in levels)
        self.mix = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in levels)
        self.to_maps = nn.Conv2d(width, maps, 1)
        self.embedding = nn.Embedding(config.filters, hidden)
        self.alpha = nn.Embedding(config.filters, 1)
        if config.classes:
            self.class_embedding = nn.Parameter(torch.zeros(hidden))
            self.class_alpha = nn.Parameter(torch.zeros(1))
        self.from_coarse = nn.Conv2d(width, hidden, 1)
        self.from_own = nn.Conv2d(1, hidden, 1, bias=False)
        self.head_spatial = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.head_mix = nn.Conv2d(hidden, hidden, 1)
        self.shift = nn.Linear(hidden, 1)
        self.query = nn.Linear(hidden, maps)
        self.retention_hidden = nn.Linear(hidden + 2 + len(config.areas), hidden)
        self.retention_out = nn.Linear(hidden, len(config.areas))
        self.register_buffer("kernel", gaussian_kernel(config.sigma), persistent=False)
        self.register_buffer("learning_kernel", gaussian_kernel(LEARNING_SIGMA), persistent=False)
        self.voice: tuple[Tensor, Tensor] | None = None
        self._start()

    def _start(self) -> None:
        nn.init.ones_(self.alpha.weight)
        nn.init.normal_(self.embedding.weight, std=0.5)
        for layer in (self.shift, self.query):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.retention_out.bias, -2.0)

    def trunk(self, encoded: Encoded) -> tuple[Tensor, Tensor]:
        """Shared maps ``(N, R, h, w)`` on the grid and coarse features ``(N, width, hc, wc)``."""
        carried: Tensor | None = None
        coarse: Tensor | None = None
        for level, lateral, spatial, mix in zip(
            encoded.levels, self.lateral, self.spatial, self.mix, strict=True
        ):  # deepest first
            fused = lateral(level)
            if carried is not None:
                fused = fused + resize(carried, (fused.shape[-2], fused.shape[-1]))
            fused = F.relu(fused)
            carried = F.relu(fused + mix(spatial(fused)))
            coarse = carried if coarse is None else coarse
        if carried is None or coarse is None:
            raise AssertionError("an encoder has at least one level")
        return self.to_maps(resize(carried, encoded.grid)), coarse

    def forward(self, inputs: dict[str, Tensor], filters: Tensor, questions: Questions | None = None) -> Generated:
        """Explain K filters, and answer J questions about directions, of N images.

        Args:
            inputs: shared encoder: ``{tap: feature map}`` for every tap of the config; own encoder: ``{"image": x}``.
            filters: ``(N, K)`` int64 filter ids in 0..C-1, or what `choose_filters` fills.
            questions: directions over the layer's channels; None: J = 0.

        Returns:
            Ids, peaks, saliency and predicted retention; what it gives for filters does not hang on the questions.
        """
        encoded = self.encoder(inputs)
        first = None if questions is None or questions.contributions is None else questions.contributions[:, 0]
        ids, peaks = choose_filters(encoded.feature_map, filters, first)
        shared, coarse = self.trunk(encoded)
        asked = self._asked(encoded.feature_map, ids.clamp_min(0), peaks, questions)
        apart = bool(self.config.particular) and not self.training
        if apart:
            asked = asked.behind(picture_map(encoded.whole), *self.picture_voice())
        own = asked.own
        hidden = self._head(own, coarse, asked.names)  # (N, K + J, hidden, cells)
        share = resize(own, (coarse.shape[-2], coarse.shape[-1])).flatten(2)  # (N, K + J, cells)
        share = share / share.sum(dim=-1, keepdim=True)
        pooled = (hidden @ share[..., None])[..., 0]  # (N, K + J, hidden)
        query = self.query(pooled) * self.config.maps**-0.5
        size = (*own.shape[:2], *encoded.grid)
        learnt = (query @ shared.flatten(2)).view(size)
        shift = self.shift(hidden.transpose(2, 3)).view(*size[:2], *coarse.shape[-2:])
        base = torch.log(resize(own, encoded.grid) + FLOOR)
        saliency = asked.alpha[..., None] * base + resize(shift, encoded.grid) + learnt
        saliency = smoothed(saliency, self.get_buffer("learning_kernel" if self.training else "kernel"))
        k = ids.shape[1]
        if apart:
            picture, saliency, own, pooled = saliency[:, :1], saliency[:, 1:], own[:, 1:], pooled[:, 1:]
            filters = told_apart(saliency[:, :k], picture, self.config.particular)
            saliency = torch.cat((filters, saliency[:, k:]), dim=1)
        kept = energy_share(own.detach(), saliency.detach(), self.config.areas)
        retention = self._retention(pooled.detach(), own.detach(), asked.peaks.detach(), kept)
        return Generated(ids, peaks, saliency[:, :k], retention[:, :k], saliency[:, k:], retention[:, k:])

    def picture_voice(self) -> tuple[Tensor, Tensor]:
        """Embedding and alpha of the question about the picture as a whole; of a subset, those of the whole layer."""
        return self.voice or voice_of_all(self.embedding.weight, self.alpha.weight)

    def _asked(self, feature_map: Tensor, ids: Tensor, peaks: Tensor, questions: Questions | None) -> _Asked:
        own = feature_map.gather(1, ids[:, :, None, None].expand(-1, -1, *feature_map.shape[-2:]))  # (N, K, fh, fw)
        own = (own / peaks.clamp_min(SMALLEST_PEAK)[:, :, None, None]).clamp_min(NOTHING)
        names, alpha = self.embedding(ids), self.alpha(ids)
        if questions is None:
            return _Asked(own, peaks, names, alpha)
        highest = questions.maps.amax(dim=(-2, -1))
        maps = (questions.maps / highest.clamp_min(SMALLEST_PEAK)[:, :, None, None]).clamp_min(NOTHING)
        direction, steepness = questions.weights @ self.embedding.weight, questions.weights @ self.alpha.weight
        if questions.contributions is not None:
            direction, steepness = direction + self.class_embedding, steepness + self.class_alpha
        return _Asked(
            torch.cat((own, maps), dim=1),
            torch.cat((peaks, highest), dim=1),
            torch.cat((names, direction), dim=1),
            torch.cat((alpha, steepness), dim=1),
        )

    def _head(self, own: Tensor, coarse: Tensor, names: Tensor) -> Tensor:
        """Hidden features of every asked filter at every coarse cell, ``(N, K, hidden, hc wc)``."""
        size = (coarse.shape[-2], coarse.shape[-1])
        seen = torch.log(resize(own, size) + FLOOR).flatten(0, 1)[:, None]  # (N K, 1, hc, wc)
        shared = self.from_coarse(coarse)[:, None]  # (N, 1, hidden, hc, wc)
        hidden = F.relu((shared + names[..., None, None]).flatten(0, 1) + self.from_own(seen))
        hidden = F.relu(hidden + self.head_mix(self.head_spatial(hidden)))
        return hidden.view(*names.shape[:2], hidden.shape[1], -1)

    def retention_parameters(self) -> Iterator[nn.Parameter]:
        """The weights of the retention head, which move no mask."""
        yield from self.retention_hidden.parameters()
        yield from self.retention_out.parameters()

    def _retention(self, pooled: Tensor, own: Tensor, peaks: Tensor, kept: Tensor) -> Tensor:
        shape = torch.stack((own.mean(dim=(-2, -1)), torch.log1p(peaks.clamp_min(0))), dim=-1)
        hidden_units = F.relu(self.retention_hidden(torch.cat((pooled, shape, kept), dim=-1)))
        growth = F.softplus(self.retention_out(hidden_units))
        return 1 - torch.exp(-growth.cumsum(dim=-1))
