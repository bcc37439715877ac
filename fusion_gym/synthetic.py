"""Procedural scenes: a visible and a thermal image that disagree the way real ones do.

A scene is drawn in layers from far to near. Each layer paints its colour into the visible image and its temperature
into the thermal one; weather, light, optics and sensors come last. Everything is drawn from one generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fusion_gym.opencv import cv2

KINDS = ("day", "night", "glare", "fog", "smoke", "flat")
_OVERSAMPLE = 2  # drawn at twice the size, so that edges are smooth


@dataclass(frozen=True)
class Scene:
    """One pair.

    Attributes:
        ir: Infrared, uint8 (H, W).
        vi: Visible, uint8 (H, W, 3) BGR.
        kind: One of `KINDS`.
    """

    ir: np.ndarray
    vi: np.ndarray
    kind: str


def fractal(rng: np.random.Generator, height: int, width: int, coarsest: int = 4, roughness: float = 0.6) -> np.ndarray:
    """Fractal noise, float32 (H, W) of mean 0 and standard deviation 1: octaves of interpolated white noise."""
    total = np.zeros((height, width), np.float32)
    cells, amplitude = coarsest, 1.0
    while cells < max(height, width) // 2:
        grid = rng.standard_normal((max(2, cells * height // width), max(2, cells))).astype(np.float32)
        total += amplitude * cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC)
        cells, amplitude = cells * 2, amplitude * roughness
    return (total - total.mean()) / max(float(total.std()), 1e-6)


class _Canvas:
    """Radiance of the visible image, (H, W, 3), and temperature, (H, W), both about [0, 1]."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng, self.height, self.width = rng, height, width
        self.colour = np.zeros((height, width, 3), np.float32)
        self.heat = np.zeros((height, width), np.float32)
        self.light = np.zeros((height, width), np.float32)  # lamps and their halos
        self.textures = [
            fractal(rng, height, width, cells, rough) for cells, rough in ((4, 0.55), (16, 0.75), (48, 0.9))
        ]

    def texture(self, kind: int) -> np.ndarray:
        """One of the prepared textures (smooth, rough, fine), mirrored or inverted at random."""
        row, column = (1 if self.rng.random() < 0.5 else -1 for _ in range(2))
        return self.textures[kind][::row, ::column] * (1 if self.rng.random() < 0.5 else -1)

    def paint(
        self, mask: np.ndarray, colour: np.ndarray, grain: float, heat: float, heat_grain: float, kind: int
    ) -> None:
        """Lays a material where the mask is: its colour and temperature, each with a texture of its own strength."""
        y, x = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(y):
            return
        box = slice(y[0], y[-1] + 1), slice(x[0], x[-1] + 1)
        cover = mask[box].astype(np.float32) / 255
        texture = self.texture(kind)[box]
        paint = colour[None, None] * (1 + grain * texture)[..., None]
        self.colour[box] += cover[..., None] * (paint - self.colour[box])
        self.heat[box] += cover * (heat + heat_grain * texture - self.heat[box])

    def mask(self) -> np.ndarray:
        """An empty mask."""
        return np.zeros((self.height, self.width), np.uint8)

    def polygon(self, points: list[tuple[float, float]]) -> np.ndarray:
        """A filled polygon; points are (x, y) in pixels."""
        return cv2.fillPoly(self.mask(), [np.array(points).round().astype(np.int32)], 255)

    def ellipse(self, x: float, y: float, rx: float, ry: float, angle: float = 0) -> np.ndarray:
        """A filled ellipse."""
        axes = max(1, round(rx)), max(1, round(ry))
        return cv2.ellipse(self.mask(), (round(x), round(y)), axes, angle, 0, 360, 255, -1)


def _gray(rng: np.random.Generator, low: float, high: float, tint: float = 0.06) -> np.ndarray:
    return np.clip(rng.uniform(low, high) * (1 + tint * rng.standard_normal(3)), 0.01, 1).astype(np.float32)


def _background(c: _Canvas, horizon: float, heat: float) -> None:
    rng = c.rng
    rows = np.linspace(0, 1, c.height, dtype=np.float32)[:, None]
    sky = np.array([0.95, 0.82, 0.7], np.float32) * rng.uniform(0.7, 1.0)
    clouds = np.clip(c.texture(0), 0, 2)[..., None] * rng.uniform(0, 0.12)
    c.colour[:] = np.clip(sky * (0.7 + 0.3 * rows[..., None]) + clouds, 0, 1)
    c.heat[:] = rng.uniform(0.02, 0.12) + 0.08 * rows + 0.015 * c.texture(0)
    ground = c.mask()
    ground[round(horizon) :] = 255
    c.paint(ground, _gray(rng, 0.25, 0.5, 0.05) * np.array([0.85, 1.02, 0.98], np.float32), 0.16, heat, 0.03, 1)
    vanish = rng.uniform(0.3, 0.7) * c.width
    left, right = rng.uniform(-0.6, 0.2) * c.width, rng.uniform(0.8, 1.6) * c.width
    road = [(vanish - 0.02 * c.width, horizon), (vanish + 0.02 * c.width, horizon), (right, c.height), (left, c.height)]
    c.paint(c.polygon(road), _gray(rng, 0.2, 0.45, 0.03), 0.07, heat + rng.uniform(0.02, 0.16), 0.012, 2)
    for _ in range(int(rng.integers(0, 4))):  # markings and letters: paint without heat
        at = rng.uniform(0.1, 0.9)
        foot = left + at * (right - left)
        for start in np.arange(rng.uniform(0, 0.1), 1, 0.16):
            span = [horizon + (c.height - horizon) * s**1.6 for s in (start, start + 0.09)]
            x = [vanish + (foot - vanish) * (y - horizon) / (c.height - horizon) for y in span]
            half = [0.006 * c.width * (y - horizon) / (c.height - horizon) + 0.5 for y in span]
            quad = [
                (x[0] - half[0], span[0]),
                (x[0] + half[0], span[0]),
                (x[1] + half[1], span[1]),
                (x[1] - half[1], span[1]),
            ]
            c.paint(c.polygon(quad), _gray(rng, 0.75, 0.95), 0.05, heat + 0.06, 0.01, 2)
    for _ in range(int(rng.integers(0, 3))):  # shadows of clouds and trees: dark in both, much less in the heat
        y = rng.uniform(horizon, c.height)
        shade = cv2.blur(
            c.ellipse(rng.uniform(0, c.width), y, rng.uniform(0.1, 0.4) * c.width, 0.05 * c.height), (15, 15)
        )
        c.colour *= 1 - 0.45 * (shade / 255.0)[..., None].astype(np.float32)
        c.heat -= 0.03 * (shade / 255.0).astype(np.float32)


def _building(c: _Canvas, horizon: float, heat: float) -> None:
    rng = c.rng
    width, tall = rng.uniform(0.15, 0.45) * c.width, rng.uniform(0.25, 1.1) * horizon
    x, foot = rng.uniform(-0.1, 0.9) * c.width, horizon + rng.uniform(0, 0.08) * c.height
    slant = rng.uniform(-0.12, 0.12) * tall
    top = foot - tall
    c.paint(
        c.polygon([(x, top), (x + width, top + slant), (x + width, foot), (x, foot)]),
        _gray(rng, 0.3, 0.85, 0.1),
        0.06,
        heat + rng.uniform(-0.08, 0.15),
        0.02,
        int(rng.integers(3)),
    )
    lit = rng.random() < 0.5
    columns, floors = int(rng.integers(2, 8)), int(rng.integers(2, 7))
    warm, glass = heat + rng.uniform(-0.15, 0.2), _gray(rng, 0.08, 0.4)
    panes = c.mask()
    for column in range(columns):
        for floor in range(floors):
            if rng.random() < 0.85:
                left, high = (
                    x + width * (column + 0.25) / columns,
                    top + abs(slant) + (tall * 0.95) * (floor + 0.25) / floors,
                )
                corner = round(left + 0.5 * width / columns), round(min(high + 0.45 * tall / floors, foot))
                cv2.rectangle(panes, (round(left), round(high)), corner, 255, -1)
                if lit and rng.random() < 0.25:
                    cv2.rectangle(c.light, (round(left), round(high)), corner, 0.8, -1)
    c.paint(panes, glass, 0.25, warm, 0.03, 1)


def _tree(c: _Canvas, horizon: float, heat: float) -> None:
    rng = c.rng
    size = rng.uniform(0.1, 0.35) * c.height
    x, foot = rng.uniform(0, c.width), horizon + rng.uniform(0, 0.15) * c.height
    trunk = 0.05 * size
    c.paint(
        c.polygon([(x - trunk, foot - size), (x + trunk, foot - size), (x + trunk, foot), (x - trunk, foot)]),
        _gray(rng, 0.1, 0.3),
        0.2,
        heat + 0.05,
        0.03,
        2,
    )
    crown = c.ellipse(x, foot - 1.3 * size, rng.uniform(0.4, 0.8) * size, rng.uniform(0.5, 0.8) * size)
    soft = cv2.blur(crown, (2 * int(0.18 * size) + 1,) * 2).astype(np.float32) / 255
    leaves = np.clip((soft - 0.5 + 0.28 * c.texture(1) + 0.16 * c.texture(2)) * 6, 0, 1) * (soft > 0.02)
    green = _gray(rng, 0.12, 0.35) * np.array([0.75, 1.15, 0.85], np.float32)
    c.paint((255 * leaves).astype(np.uint8), green, 0.45, heat + rng.uniform(-0.1, 0.1), 0.05, 1)


def _vehicle(c: _Canvas, horizon: float, heat: float) -> None:
    rng = c.rng
    depth = rng.uniform(0.08, 1) ** 1.5
    foot = horizon + depth * (c.height - horizon) * 0.95
    w = (0.05 + 0.3 * depth) * c.width
    h, x = 0.38 * w, rng.uniform(0, c.width)
    paint, warm = _gray(rng, 0.05, 0.9, 0.25), heat + rng.uniform(-0.1, 0.2)
    c.paint(c.ellipse(x, foot, 0.52 * w, 0.06 * w), _gray(rng, 0.03, 0.1), 0.05, heat + 0.12, 0.02, 2)
    body = [(-0.5, -0.2), (-0.48, -0.55), (-0.3, -0.6), (-0.2, -1), (0.22, -1), (0.36, -0.6), (0.48, -0.5), (0.5, -0.2)]
    c.paint(c.polygon([(x + a * w, foot + b * h) for a, b in body]), paint, 0.06, warm, 0.02, 0)
    window = [(-0.25, -0.62), (-0.17, -0.93), (0.19, -0.93), (0.29, -0.62)]
    c.paint(c.polygon([(x + a * w, foot + b * h) for a, b in window]), _gray(rng, 0.03, 0.2), 0.3, heat - 0.12, 0.02, 0)
    hot = rng.random() < 0.75
    for side in (-0.3, 0.3):
        c.paint(
            c.ellipse(x + side * w, foot - 0.1 * h, 0.085 * w, 0.085 * w),
            _gray(rng, 0.02, 0.08),
            0.1,
            heat + (0.35 if hot else 0.05),
            0.03,
            2,
        )
    if hot:
        front = 1 if rng.random() < 0.5 else -1
        c.paint(c.ellipse(x + front * 0.4 * w, foot - 0.4 * h, 0.1 * w, 0.16 * h), paint, 0.06, heat + 0.5, 0.02, 0)
        for lamp in (-0.42, 0.42):
            cv2.circle(c.light, (round(x + lamp * w), round(foot - 0.42 * h)), max(1, round(0.035 * w)), 1.0, -1)


def _person(c: _Canvas, horizon: float, heat: float) -> None:
    rng = c.rng
    depth = rng.uniform(0.05, 1) ** 1.3
    foot = horizon + depth * (c.height - horizon) * 0.95
    h = (0.08 + 0.38 * depth) * c.height
    x, stride = rng.uniform(0, c.width), rng.uniform(0.03, 0.14) * h
    warm = np.clip(heat + rng.uniform(0.3, 0.55), 0, 1)
    cloth, legs = _gray(rng, 0.05, 0.7, 0.25), _gray(rng, 0.05, 0.4, 0.15)
    if rng.random() < 0.5:  # camouflage: clothes as bright as what is behind
        row, column = int(np.clip(foot - h / 2, 0, c.height - 1)), int(np.clip(x, 0, c.width - 1))
        cloth = np.clip(c.colour[row, column], 0.02, 1)
    for side in (-1, 1):
        leg = [
            (x - 0.045 * h, foot - 0.5 * h),
            (x + 0.045 * h, foot - 0.5 * h),
            (x + side * stride + 0.03 * h, foot),
            (x + side * stride - 0.03 * h, foot),
        ]
        c.paint(c.polygon(leg), legs, 0.1, warm - 0.1, 0.03, 1)
        arm = [
            (x + side * 0.08 * h, foot - 0.8 * h),
            (x + side * 0.12 * h, foot - 0.78 * h),
            (x + side * 0.14 * h, foot - 0.45 * h),
            (x + side * 0.1 * h, foot - 0.45 * h),
        ]
        c.paint(c.polygon(arm), cloth, 0.1, warm - 0.05, 0.03, 1)
    c.paint(c.ellipse(x, foot - 0.65 * h, 0.1 * h, 0.2 * h), cloth, 0.12, warm, 0.05, 1)
    c.paint(c.ellipse(x, foot - 0.91 * h, 0.055 * h, 0.07 * h), _gray(rng, 0.35, 0.65, 0.1), 0.05, warm + 0.12, 0.02, 0)


def _small_things(c: _Canvas, horizon: float, heat: float) -> None:
    rng = c.rng
    if rng.random() < 0.5:  # a fence
        y, h = horizon + rng.uniform(0.02, 0.3) * c.height, rng.uniform(0.04, 0.12) * c.height
        fence = c.mask()
        for x in np.arange(0, c.width, rng.uniform(0.03, 0.08) * c.width):
            cv2.line(fence, (round(x), round(y)), (round(x), round(y - h)), 255, 2)
        for rail in (0.3, 0.8):
            cv2.line(fence, (0, round(y - rail * h)), (c.width, round(y - rail * h)), 255, 2)
        c.paint(fence, _gray(rng, 0.1, 0.9), 0.05, heat + rng.uniform(-0.15, 0.1), 0.01, 0)
    for _ in range(int(rng.integers(0, 3))):  # poles with a sign or a lamp
        x, foot, h = rng.uniform(0, c.width), horizon + 0.1 * c.height, rng.uniform(0.25, 0.8) * horizon
        pole = cv2.line(c.mask(), (round(x), round(foot)), (round(x), round(foot - h)), 255, 3)
        c.paint(pole, _gray(rng, 0.1, 0.5), 0.05, heat - rng.uniform(0, 0.2), 0.01, 0)
        if rng.random() < 0.5:
            cv2.circle(c.light, (round(x), round(foot - h)), 3, 1.0, -1)
            continue
        w = rng.uniform(0.03, 0.09) * c.width
        board = c.polygon([(x - w, foot - h - w), (x + w, foot - h - w), (x + w, foot - h), (x - w, foot - h)])
        c.paint(board, _gray(rng, 0.5, 0.95, 0.3), 0.03, heat - 0.05, 0.01, 0)
        text = "".join(chr(int(code)) for code in rng.integers(65, 91, 3))
        letters = cv2.putText(
            c.mask(),
            text,
            (round(x - 0.85 * w), round(foot - h - 0.3 * w)),
            cv2.FONT_HERSHEY_SIMPLEX,
            max(0.2, w / 40),
            255,
            2,
            cv2.LINE_AA,
        )
        c.paint(letters, _gray(rng, 0.02, 0.1), 0, heat - 0.05, 0.01, 0)


def _halo(light: np.ndarray, sigma: float) -> np.ndarray:
    small = cv2.resize(light, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma / 4), light.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _weather(c: _Canvas, kind: str, horizon: float) -> None:
    rng = c.rng
    rows = np.arange(c.height, dtype=np.float32)[:, None]
    if kind in ("night", "glare"):
        c.colour *= rng.uniform(0.04, 0.25)
        c.light *= rng.uniform(0.7, 1.3)
        if kind == "glare":
            for _ in range(int(rng.integers(1, 4))):
                at = round(rng.uniform(0, c.width)), round(rng.uniform(0.8 * horizon, 0.5 * (horizon + c.height)))
                cv2.circle(c.light, at, round(rng.uniform(0.015, 0.04) * c.width), rng.uniform(2, 6), -1)
        glow = c.light + 1.2 * _halo(c.light, 0.02 * c.width) + 2.5 * _halo(c.light, 0.08 * c.width)
        tint = np.array([0.75, 0.92, 1.0], np.float32)
        c.colour = (
            c.colour * (1 + 8 * np.minimum(_halo(c.light, 0.1 * c.width), 0.5)[..., None]) + glow[..., None] * tint
        )
    elif kind == "fog":
        near = np.clip((rows - horizon) / (c.height - horizon), 0, 1)
        through = np.exp(-rng.uniform(1.0, 3.0) * (1 - 0.85 * near) * np.clip(1 + 0.2 * c.texture(0), 0.2, 2))
        c.colour = c.colour * through[..., None] + rng.uniform(0.55, 0.85) * (1 - through[..., None])
        c.heat = c.heat.mean() + (c.heat - c.heat.mean()) * (0.6 + 0.4 * through)
    elif kind == "smoke":
        cloud = c.ellipse(
            rng.uniform(0.2, 0.8) * c.width, rng.uniform(0.3, 0.7) * c.height, 0.35 * c.width, 0.3 * c.height
        )
        soft = _halo(cloud.astype(np.float32) / 255, 0.09 * c.width)
        cover = np.clip(soft * 1.5 + 0.25 * c.texture(0) * soft, 0, 0.97)[..., None]
        shade = rng.uniform(0.15, 0.8) * (1 + 0.12 * c.texture(0))[..., None]
        c.colour += cover * (shade - c.colour)
        c.heat += 0.05 * cover[..., 0]
    else:
        c.colour *= rng.uniform(0.75, 1.25)
    if kind == "flat":  # hardly any thermal contrast, as at dawn
        c.heat = c.heat.mean() + 0.3 * (c.heat - c.heat.mean())


def generate_scene(rng: np.random.Generator, height: int = 256, width: int = 256) -> Scene:
    """Draws one scene.

    Args:
        rng: Where every random number comes from.
        height: Height in pixels.
        width: Width in pixels.

    Returns:
        The pair.
    """
    kind = str(rng.choice(KINDS, p=(0.34, 0.24, 0.12, 0.1, 0.1, 0.1)))
    c = _Canvas(rng, _OVERSAMPLE * height, _OVERSAMPLE * width)
    horizon, heat = rng.uniform(0.25, 0.5) * c.height, rng.uniform(0.15, 0.45)
    _background(c, horizon, heat)
    for draw, most in ((_building, 3), (_tree, 6), (_small_things, 2), (_vehicle, 4), (_person, 5)):
        for _ in range(int(rng.integers(0 if most < 4 else 1, most + 1))):
            draw(c, horizon, heat)
    _weather(c, kind, horizon)
    size = (width, height)
    visible = cv2.resize(c.colour, size, interpolation=cv2.INTER_AREA)
    thermal = cv2.resize(c.heat, size, interpolation=cv2.INTER_AREA)
    visible = np.clip(visible, 0, 1) ** (1 / 1.4)
    visible += (
        np.sqrt(visible * 0.0004 + 0.00003).astype(np.float32) * rng.standard_normal(visible.shape, np.float32) * 1.5
    )
    thermal = cv2.GaussianBlur(thermal, (0, 0), rng.uniform(0.4, 1.0))
    low, high = np.percentile(thermal, (0.5, 99.7))
    reach = max(float(high - low), 0.25)  # automatic gain, which does not blow up an even scene
    thermal = (thermal - low) / reach * rng.uniform(0.7, 1.0) + rng.uniform(0, 0.1)
    fixed = 0.006 * rng.standard_normal((1, width)) + 0.003 * rng.standard_normal((height, 1))
    thermal = thermal + fixed + rng.uniform(0.004, 0.02) * rng.standard_normal(thermal.shape, np.float32)
    to_8_bit = [np.clip(255 * image + 0.5, 0, 255).astype(np.uint8) for image in (thermal, visible)]
    return Scene(to_8_bit[0], to_8_bit[1], kind)


def generate_scenes(count: int, side: int, seed: int) -> np.ndarray:
    """Draws scenes, each from a child of the seed: uint8 (count, side, side, 4), infrared then BGR."""
    children = np.random.SeedSequence([seed, side]).spawn(count)
    scenes = [generate_scene(np.random.default_rng(child), side, side) for child in children]
    return np.stack([np.dstack((scene.ir, scene.vi)) for scene in scenes])
