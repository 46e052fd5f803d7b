"""The part variants of the synthetic objects, as vector drawings.

An object is a wind-up toy bird seen from the side: body, head, wing, tail, wheels and an emblem on the body.
Every part type has three variants. All variants of a part sit on the same socket of every body, so one can be
exchanged for another without moving anything else.

Units: the body is about 0.9 units long; x points forward, y points down, the origin is its middle.
A variant takes a row of eight jitter numbers in [0, 1) and returns its pieces in drawing order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]  # (n, 2), x and y
Jitter = npt.NDArray[np.float64]  # (8,) in [0, 1)
Tone = Literal["base", "dark", "light", "accent", "ink", "white"]


@dataclass(frozen=True)
class Piece:
    """One filled shape or one line of a part.

    Attributes:
        contours: the closed outlines, filled by the even-odd rule; for a line, its corners.
        tone: which of the part's colours it has.
        edge: whether it gets the picture's outline (silhouettes do, decorations do not).
        width: line width in units; 0 for a filled shape.
    """

    contours: tuple[Points, ...]
    tone: Tone = "base"
    edge: bool = False
    width: float = 0.0


Variant = Callable[[Jitter], list[Piece]]


def _ellipse(
    x: float, y: float, rx: float, ry: float, *, power: float = 2.0, turn: float = 0.0, corners: int = 32
) -> Points:
    """|u / rx|^power + |v / ry|^power = 1, turned by `turn` radians: a rounded box for power > 2."""
    t = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    c, s = np.cos(t), np.sin(t)
    u = rx * np.sign(c) * np.abs(c) ** (2 / power)
    v = ry * np.sign(s) * np.abs(s) ** (2 / power)
    return np.stack([x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn)], axis=1)


def _polygon(*corners: tuple[float, float]) -> Points:
    return np.array(corners, dtype=np.float64)


def _arc(x: float, y: float, radius: float, start: float, stop: float, corners: int = 12) -> Points:
    """Points on a circle from angle `start` to `stop` in degrees (0 forward, 90 down)."""
    t = np.radians(np.linspace(start, stop, corners))
    return np.stack([x + radius * np.cos(t), y + radius * np.sin(t)], axis=1)


def _between(low: float, high: float, share: float) -> float:
    return low + (high - low) * float(share)


def _spokes(x: float, y: float, inner: float, outer: float, count: int, turn: float) -> list[Points]:
    """`count` radial lines around (x, y), turned by `turn` of the step between two."""
    t = 2 * np.pi * (np.arange(count) + turn) / count
    way = np.stack([np.cos(t), np.sin(t)], axis=1)
    return [np.array([[x, y] + inner * w, [x, y] + outer * w]) for w in way]


# body: the middle of the object, around the origin


def _body_egg(j: Jitter) -> list[Piece]:
    shell = _ellipse(0, 0, _between(0.43, 0.46, j[0]), _between(0.28, 0.31, j[1]), corners=40)
    shell[:, 1] *= 1 - 0.3 * shell[:, 0]
    return [
        Piece((shell,), edge=True),
        Piece((_ellipse(-0.02, 0.15, 0.3, 0.1),), "light"),
    ]


def _body_dart(j: Jitter) -> list[Piece]:
    hull = _ellipse(0.0, 0.02, _between(0.52, 0.56, j[0]), _between(0.185, 0.205, j[1]), power=1.6, corners=40)
    return [
        Piece((hull,), edge=True),
        Piece((_polygon((-0.44, 0.07), (0.44, 0.07), (0.34, 0.12), (-0.34, 0.12)),), "light"),
    ]


def _body_box(j: Jitter) -> list[Piece]:
    rx, ry = _between(0.42, 0.45, j[0]), _between(0.235, 0.26, j[1])
    seam = _between(-0.2, -0.14, j[2])
    return [
        Piece((_ellipse(0, 0.01, rx, ry, power=7, corners=44),), edge=True),
        Piece(
            (
                _polygon(
                    (-rx + 0.04, ry - 0.09),
                    (rx - 0.04, ry - 0.09),
                    (rx - 0.04, ry - 0.03),
                    (-rx + 0.04, ry - 0.03),
                ),
            ),
            "dark",
        ),
        Piece((_polygon((seam, -ry + 0.03), (seam, ry - 0.1)),), "dark", width=0.025),
        Piece((_polygon((seam - 0.16, -ry + 0.03), (seam - 0.16, ry - 0.1)),), "dark", width=0.025),
    ]


# head: the socket is the upper front of the body


def _eye(x: float, y: float, radius: float) -> list[Piece]:
    return [
        Piece((_ellipse(x, y, radius, radius, corners=16),), "white"),
        Piece((_ellipse(x + 0.3 * radius, y, 0.5 * radius, 0.5 * radius, corners=12),), "ink"),
    ]


def _head_round(j: Jitter) -> list[Piece]:
    r = _between(0.185, 0.205, j[0])
    drop = _between(-0.02, 0.05, j[1])
    return [
        Piece((_polygon((0.22, -0.15), (0.45, -0.05 + drop), (0.22, 0.03)),), "accent", edge=True),
        Piece((_ellipse(0.1, -0.08, r, r),), edge=True),
        *_eye(0.15, -0.13, 0.065),
    ]


def _head_crest(j: Jitter) -> list[Piece]:
    rise = _between(0.0, 0.05, j[0])
    comb = [
        (-0.1, -0.1),
        (-0.2, -0.3 - rise),
        (-0.03, -0.2),
        (-0.03, -0.41 - rise),
        (0.09, -0.22),
        (0.16, -0.36),
        (0.2, -0.16),
    ]
    face = [
        (-0.12, 0.1),
        (-0.08, -0.16),
        (0.12, -0.24),
        (0.25, -0.16),
        (0.5, 0.06),
        (0.2, 0.06),
        (0.06, 0.14),
    ]
    return [
        Piece((_polygon(*comb),), "accent", edge=True),
        Piece((_polygon(*face),), edge=True),
        *_eye(0.14, -0.12, 0.055),
    ]


def _head_cube(j: Jitter) -> list[Piece]:
    lean = _between(-0.06, 0.06, j[0])
    return [
        Piece((_polygon((0.1, -0.2), (0.1 + lean, -0.4)),), "ink", width=0.035),
        Piece((_ellipse(0.1 + lean, -0.42, 0.055, 0.055, corners=16),), "accent", edge=True),
        Piece((_ellipse(0.11, -0.08, 0.2, 0.17, power=8, corners=36),), edge=True),
        Piece((_polygon((0.02, -0.17), (0.29, -0.17), (0.29, -0.05), (0.02, -0.05)),), "ink"),
        Piece((_polygon((0.18, -0.15), (0.25, -0.15), (0.25, -0.08), (0.18, -0.08)),), "white"),
    ]


# wing: the socket is on the upper back of the body; it points up and back


def _wing_leaf(j: Jitter) -> list[Piece]:
    turn = np.radians(_between(50, 62, j[0]))
    way = np.array([-np.cos(turn), -np.sin(turn)])
    x, y = (0.24 * way).tolist()
    blade = _ellipse(x, y, 0.32, _between(0.12, 0.14, j[1]), turn=turn, power=1.8)
    rib = np.stack([0.02 * way, 0.46 * way])
    return [Piece((blade,), edge=True), Piece((rib,), "dark", width=0.035)]


def _wing_delta(j: Jitter) -> list[Piece]:
    tip = (_between(-0.46, -0.4, j[0]), _between(-0.5, -0.44, j[1]))
    plane = _polygon((0.13, 0.06), (-0.2, 0.06), tip, (tip[0] + 0.12, tip[1] - 0.02))
    stripe = _polygon((0.0, 0.0), (-0.1, 0.0), (tip[0] + 0.06, tip[1] + 0.1), (tip[0] + 0.13, tip[1] + 0.1))
    return [Piece((plane,), edge=True), Piece((stripe,), "light")]


def _wing_bat(j: Jitter) -> list[Piece]:
    lift = _between(-0.03, 0.03, j[0])
    tips = [(-0.06, -0.52 + lift), (-0.36, -0.43 + lift), (-0.5, -0.17 + lift), (-0.26, 0.05)]
    outline = [np.array([(0.16, 0.06), tips[0]])]
    for (ax, ay), (bx, by) in pairwise(tips):  # scallops bend towards the socket
        t = np.linspace(0, 1, 8)[1:, None]
        bend = 0.34 * np.sin(np.pi * t) * np.array([-(ax + bx) / 2, -(ay + by) / 2])
        outline.append((1 - t) * [ax, ay] + t * [bx, by] + bend)
    ribs = [Piece((_polygon((0.04, 0.02), (0.93 * x, 0.93 * y)),), "dark", width=0.028) for x, y in tips[:3]]
    return [Piece((np.concatenate(outline),), edge=True), *ribs]


# tail: the socket is the back end of the body


def _tail_fork(j: Jitter) -> list[Piece]:
    spread = _between(0.24, 0.3, j[0])
    blades = _polygon((0.06, -0.07), (-0.38, -spread), (-0.15, 0.0), (-0.38, spread), (0.06, 0.07))
    return [Piece((blades,), edge=True)]


def _tail_fan(j: Jitter) -> list[Piece]:
    half = _between(36, 44, j[0])
    wedge = np.concatenate([_polygon((0.05, 0.0)), _arc(0.05, 0, 0.4, 180 - half, 180 + half)])
    pleats = [Piece((_arc(0.05, 0, 0.36, a, a, 1).repeat(2, axis=0) * [[1], [0.35]],), "dark", width=0.03)
              for a in np.linspace(180 - 0.6 * half, 180 + 0.6 * half, 3)]  # fmt: skip
    return [Piece((wedge,), edge=True), *pleats]


def _tail_curl(j: Jitter) -> list[Piece]:
    turns = np.linspace(0, 1, 26)
    angle = np.radians(90 + _between(390, 440, j[0]) * turns)
    radius = 0.19 * (1 - 0.62 * turns)
    spiral = np.stack([-0.2 + radius * np.cos(angle), -0.15 + radius * np.sin(angle)], axis=1)
    line = np.concatenate([_polygon((0.06, 0.04)), spiral])
    return [Piece((line,), "base", edge=True, width=0.085)]


# wheel: two sockets under the body


def _wheel_round(j: Jitter) -> list[Piece]:
    spokes = [Piece((line,), "dark", width=0.03) for line in _spokes(0, 0, 0.0, 0.1, 5, j[0])]
    return [
        Piece((_ellipse(0, 0, 0.17, 0.17),), "dark", edge=True),
        Piece((_ellipse(0, 0, 0.11, 0.11, corners=24),), "light"),
        *spokes,
        Piece((_ellipse(0, 0, 0.035, 0.035, corners=12),), "accent"),
    ]


def _wheel_square(j: Jitter) -> list[Piece]:
    turn = np.radians(_between(-14, 14, j[0]))
    return [
        Piece((_ellipse(0, 0, 0.155, 0.155, power=9, turn=turn, corners=36),), "dark", edge=True),
        Piece((_ellipse(0, 0, 0.095, 0.095, power=9, turn=turn, corners=28),), "light"),
        Piece((_ellipse(0, 0, 0.045, 0.045, corners=14),), "accent"),
    ]


def _wheel_gear(j: Jitter) -> list[Piece]:
    t = np.arange(28)
    angle = 2 * np.pi * (t + 4 * j[0]) / 28
    radius = np.where(t % 4 < 2, 0.195, 0.13)
    teeth = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return [
        Piece((teeth,), "dark", edge=True),
        Piece((_ellipse(0, 0, 0.07, 0.07, corners=18),), "light"),
    ]


# emblem: the socket is on the front half of the body


def _emblem_star(j: Jitter) -> list[Piece]:
    angle = np.radians(-90 + 36 * np.arange(10) + _between(-12, 12, j[0]))
    radius = np.where(np.arange(10) % 2 == 0, 0.165, 0.068)
    return [Piece((np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1),))]


def _emblem_cross(j: Jitter) -> list[Piece]:
    a, b = 0.14, 0.048
    plus = [
        (-b, -a),
        (b, -a),
        (b, -b),
        (a, -b),
        (a, b),
        (b, b),
        (b, a),
        (-b, a),
        (-b, b),
        (-a, b),
        (-a, -b),
        (-b, -b),
    ]
    turn = np.radians(_between(-10, 10, j[0]))
    spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return [Piece((_polygon(*plus) @ spin,))]


def _emblem_ring(j: Jitter) -> list[Piece]:
    inner = _between(0.068, 0.08, j[0])
    return [Piece((_ellipse(0, 0, 0.135, 0.135, corners=28), _ellipse(0, 0, inner, inner, corners=20)))]


VARIANTS: Final[dict[str, dict[str, Variant]]] = {
    "body": {"egg": _body_egg, "dart": _body_dart, "box": _body_box},
    "head": {"round": _head_round, "crest": _head_crest, "cube": _head_cube},
    "wing": {"leaf": _wing_leaf, "delta": _wing_delta, "bat": _wing_bat},
    "tail": {"fork": _tail_fork, "fan": _tail_fan, "curl": _tail_curl},
    "wheel": {"round": _wheel_round, "square": _wheel_square, "gear": _wheel_gear},
    "emblem": {"star": _emblem_star, "cross": _emblem_cross, "ring": _emblem_ring},
}
SOCKETS: Final[dict[str, tuple[tuple[float, float], ...]]] = {
    "body": ((0.0, 0.0),),
    "head": ((0.36, -0.14),),
    "wing": ((-0.1, -0.12),),
    "tail": ((-0.42, 0.0),),
    "wheel": ((-0.24, 0.26), (0.2, 0.26)),
    "emblem": ((0.15, 0.0),),
}
DRAWING_ORDER: Final = ("tail", "body", "wheel", "head", "wing", "emblem")
EXTENT: Final = (-0.92, -0.66, 0.9, 0.48)  # x0, y0, x1, y1 of the largest object


def pieces(part: str, variant: str, jitter: Jitter) -> list[Piece]:
    """The pieces of a variant on the sockets of its part, in the object's units."""
    local = VARIANTS[part][variant](jitter)
    return [
        Piece(tuple(contour + socket for contour in piece.contours), piece.tone, piece.edge, piece.width)
        for socket in np.array(SOCKETS[part])
        for piece in local
    ]
