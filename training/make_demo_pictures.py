"""Make a folder of procedural pictures with known distortion levels, so that the demo runs without any data set.

    python training/make_demo_pictures.py demo/pictures

writes `images/*.jpg` and `labels.csv` (image, mos, content, distortion, level). The rating is not a person's: it is
5 - 4 x level, where `level` in [0, 1] is how strongly one known distortion was applied. A score that follows it says
that the whole path works, not that a model agrees with people. Same arguments, same pictures.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = 320
Pixels = npt.NDArray[np.float64]  # (SIZE, SIZE, 3) in [0, 1]
Random = np.random.Generator


def fractal(rng: Random) -> Pixels:
    """Coloured noise with the 1/f amplitude spectrum of natural scenes."""
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.standard_normal((3, SIZE, SIZE))) / frequency ** rng.uniform(0.9, 1.3)
    planes = np.fft.irfft2(spectrum, (SIZE, SIZE))
    planes /= planes.std(axis=(1, 2), keepdims=True)
    mixed = planes[:1] + rng.uniform(0.2, 0.6) * planes  # mostly luminance, as in photographs
    return np.clip(rng.uniform(0.35, 0.65) + 0.16 * mixed.transpose(1, 2, 0), 0, 1)


def shapes(rng: Random) -> Pixels:
    """Overlapping discs, boxes and triangles of all sizes with a faint grain (the dead-leaves picture of occlusion)."""
    image = Image.new("RGB", (SIZE, SIZE))
    draw = ImageDraw.Draw(image)
    for _ in range(400):
        radius = min(6 * (1 - rng.random()) ** -0.7, SIZE / 3)
        x, y = rng.uniform(0, SIZE, 2)
        colour = tuple(int(v) for v in rng.integers(20, 236, 3))
        form = rng.integers(3)
        if form == 0:
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
        elif form == 1:
            draw.rectangle([x - radius, y - radius / 2, x + radius, y + radius / 2], fill=colour)
        else:
            draw.regular_polygon((x, y, radius), 3, rotation=float(rng.uniform(0, 360)), fill=colour)
    return 0.85 * to_pixels(image) + 0.15 * fractal(rng)


def texture(rng: Random) -> Pixels:
    """Sum of oriented waves, squared off at random: cloth, bricks, bars."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    field = np.zeros((SIZE, SIZE))
    for _ in range(3):
        angle, cycles, phase = rng.uniform(0, np.pi), rng.uniform(4, 60), rng.uniform(0, 2 * np.pi)
        field += np.sin(2 * np.pi * cycles * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    field = np.tanh(rng.uniform(0.5, 4) * field)
    low, high = rng.uniform(0.05, 0.5, 3), rng.uniform(0.5, 0.95, 3)
    return 0.9 * (low + (high - low) * (field[..., None] + 1) / 2) + 0.1 * fractal(rng)


def landscape(rng: Random) -> Pixels:
    """A smooth sky over fractal ground with a hilly horizon and a sun."""
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    top, bottom = rng.uniform([0.1, 0.2, 0.4], [0.5, 0.6, 0.9]), rng.uniform([0.5, 0.5, 0.5], [0.98, 0.9, 0.9])
    sky = top + (bottom - top) * y[..., None]
    sun = np.hypot(x - rng.uniform(0.1, 0.9), y - rng.uniform(0.05, 0.3))
    sky = sky + np.clip(0.06 - sun, 0, 0.02)[..., None] * 20
    waves = [a * np.sin(2 * np.pi * c * x[0] + p) for a, c, p in rng.uniform([0, 0.5, 0], [0.05, 6, 6.28], (4, 3))]
    ground = fractal(rng) * rng.uniform([0.3, 0.5, 0.2], [0.8, 1.0, 0.6])
    return np.clip(np.where((y > rng.uniform(0.4, 0.7) + np.sum(waves, axis=0))[..., None], ground, sky), 0, 1)


def page(rng: Random) -> Pixels:
    """Lines of letters on paper of uneven light."""
    image = Image.new("RGB", (SIZE, SIZE), tuple(int(v) for v in rng.integers(190, 250, 3)))
    draw, y = ImageDraw.Draw(image), 8
    ink = tuple(int(v) for v in rng.integers(0, 90, 3))
    while y < SIZE:
        size = int(rng.integers(10, 34))
        letters = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz     "), 60))
        draw.text((8, y), letters, fill=ink, font=ImageFont.load_default(size))
        y += size + 6
    light = np.linspace(rng.uniform(0.7, 1.0), rng.uniform(0.7, 1.0), SIZE)  # from left to right
    return to_pixels(image) * light[:, None]


def blur(pixels: Pixels, level: float, rng: Random) -> Pixels:
    """Gaussian blur, sigma up to 5 pixels."""
    return to_pixels(to_image(pixels).filter(ImageFilter.GaussianBlur(0.4 + 4.6 * level)))


def noise(pixels: Pixels, level: float, rng: Random) -> Pixels:
    """Independent Gaussian noise, standard deviation up to 0.25."""
    return pixels + rng.normal(0, 0.01 + 0.24 * level, pixels.shape)


def jpeg(pixels: Pixels, level: float, rng: Random) -> Pixels:
    """JPEG compression, quality 70 down to 4."""
    buffer = io.BytesIO()
    to_image(pixels).save(buffer, "JPEG", quality=round(70 - 66 * level))
    return to_pixels(Image.open(buffer))


def darker(pixels: Pixels, level: float, rng: Random) -> Pixels:
    """Under-exposure by up to three stops, with the noise that comes with it."""
    return pixels * 2 ** (-3 * level) + rng.normal(0, 0.03 * level, pixels.shape)


def brighter(pixels: Pixels, level: float, rng: Random) -> Pixels:
    """Over-exposure by up to two stops, clipped."""
    return pixels * 2 ** (2 * level)


def flat(pixels: Pixels, level: float, rng: Random) -> Pixels:
    """Contrast lowered to as little as 8 %, towards the mean."""
    mean = float(pixels.mean())
    return mean + (pixels - mean) * (1 - 0.92 * level)


CONTENTS: list[Callable[[Random], Pixels]] = [fractal, shapes, texture, landscape, page]
DISTORTIONS: list[Callable[[Pixels, float, Random], Pixels]] = [blur, noise, jpeg, darker, brighter, flat]


def to_pixels(image: Image.Image) -> Pixels:
    """8-bit RGB picture -> (H, W, 3) in [0, 1]."""
    return np.asarray(image.convert("RGB"), dtype=np.float64) / 255


def to_image(pixels: Pixels) -> Image.Image:
    """(H, W, 3) -> 8-bit RGB picture, clipped."""
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))


def make_pictures(folder: Path, count: int, seed: int) -> None:
    """Write `count` pictures and labels.csv into `folder`; picture i is a function of (seed, i)."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        content = CONTENTS[index % len(CONTENTS)]
        distortion = DISTORTIONS[rng.integers(len(DISTORTIONS))]
        level = 0.0 if rng.random() < 0.15 else round(float(rng.random()), 3)
        clean = content(rng)
        name = f"{content.__name__}_{index:03d}.jpg"
        to_image(distortion(clean, level, rng) if level else clean).save(folder / "images" / name, quality=95)
        rows.append([name, f"{5 - 4 * level:.3f}", content.__name__, distortion.__name__ if level else "none", level])
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "mos", "content", "distortion", "level"], *rows])


def main() -> None:
    """Parse the command line and make the pictures."""
    parser = argparse.ArgumentParser(description="Make procedural pictures with known distortion levels.")
    parser.add_argument("folder", type=Path, help="where images/ and labels.csv go")
    parser.add_argument("--count", type=int, default=300, help="how many pictures (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="which pictures (default: %(default)s)")
    arguments = parser.parse_args()
    make_pictures(arguments.folder, arguments.count, arguments.seed)
    print(
        f"Made {arguments.count} procedural pictures in {arguments.folder}. Their ratings (1 to 5, 5 = best) come from "
        "known distortion levels, not from people."
    )


if __name__ == "__main__":
    main()
