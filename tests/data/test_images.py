"""Decoding: every kind of picture has one treatment, every kind of damage one code, and no other error escapes."""

from __future__ import annotations

import builtins
import io
import os
import pickle
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from grmp_hf.data.images import IMAGE_ERROR_CODES, ImageError, decode_image, to_rgb

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encode(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def palette_picture() -> Image.Image:
    image = Image.new("P", (6, 4), 1)
    image.putpalette([0, 0, 0, *RED, 0, 255, 0])
    return image


def grey_16_bit(value: int) -> Image.Image:
    return Image.fromarray(np.full((4, 6), value, dtype=np.uint16))


def transparent_palette_picture() -> bytes:
    return encode(palette_picture(), "PNG", transparency=bytes([255, 0]))


def adobe_cmyk() -> bytes:
    # Pillow writes Adobe's marker and inverts, as Photoshop does: pure yellow and magenta ink is red.
    return encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)


def two_frames(format: str) -> bytes:
    options = {"lossless": True} if format == "WEBP" else {}
    frames = [Image.new("RGB", (6, 4), colour) for colour in (RED, (0, 0, 255))]
    return encode(frames[0], format, save_all=True, append_images=frames[1:], **options)


# name -> (encoded picture, the RGB value that all of its pixels must have, tolerance)
KINDS: dict[str, tuple[Callable[[], bytes], tuple[int, int, int], int]] = {
    "RGB PNG": (lambda: encode(Image.new("RGB", (6, 4), RED), "PNG"), RED, 0),
    "RGB JPEG": (lambda: encode(Image.new("RGB", (16, 16), RED), "JPEG", quality=100), RED, 3),
    "RGB WEBP": (lambda: encode(Image.new("RGB", (6, 4), RED), "WEBP", lossless=True), RED, 0),
    "RGB BMP": (lambda: encode(Image.new("RGB", (6, 4), RED), "BMP"), RED, 0),
    "RGB TIFF": (lambda: encode(Image.new("RGB", (6, 4), RED), "TIFF"), RED, 0),
    "RGB PPM": (lambda: encode(Image.new("RGB", (6, 4), RED), "PPM"), RED, 0),
    "grey": (lambda: encode(Image.new("L", (6, 4), 90), "PNG"), (90, 90, 90), 0),
    "grey JPEG": (lambda: encode(Image.new("L", (16, 16), 90), "JPEG"), (90, 90, 90), 1),
    "black and white": (lambda: encode(Image.new("1", (6, 4), 1), "PNG"), WHITE, 0),
    "grey, clear": (lambda: encode(Image.new("LA", (6, 4), (0, 0)), "PNG"), WHITE, 0),
    "grey, solid": (lambda: encode(Image.new("LA", (6, 4), (90, 255)), "PNG"), (90, 90, 90), 0),
    "grey, transparent value": (lambda: encode(Image.new("L", (6, 4), 7), "PNG", transparency=7), WHITE, 0),
    "RGBA, clear": (lambda: encode(Image.new("RGBA", (6, 4), (255, 0, 0, 0)), "PNG"), WHITE, 0),
    "RGBA, half": (lambda: encode(Image.new("RGBA", (6, 4), (0, 0, 0, 128)), "PNG"), (127, 127, 127), 0),
    "RGBA WEBP": (lambda: encode(Image.new("RGBA", (6, 4), (0, 0, 0, 0)), "WEBP", lossless=True), WHITE, 0),
    "RGB, transparent colour": (lambda: encode(Image.new("RGB", (6, 4), RED), "PNG", transparency=RED), WHITE, 0),
    "palette": (lambda: encode(palette_picture(), "PNG"), RED, 0),
    "palette GIF": (lambda: encode(palette_picture(), "GIF"), RED, 0),
    "palette, clear": (transparent_palette_picture, WHITE, 0),
    "palette GIF, clear": (lambda: encode(palette_picture(), "GIF", transparency=1), WHITE, 0),
    "CMYK TIFF": (lambda: encode(Image.new("CMYK", (6, 4), (0, 255, 255, 0)), "TIFF"), RED, 0),
    "CMYK JPEG of Adobe": (adobe_cmyk, RED, 3),
    "16 bit PNG, white": (lambda: encode(grey_16_bit(65535), "PNG"), WHITE, 0),
    "16 bit PNG, not clipped": (lambda: encode(grey_16_bit(257 * 100 + 128), "PNG"), (100, 100, 100), 0),
    "16 bit PNG, rounded": (lambda: encode(grey_16_bit(257 * 100 + 129), "PNG"), (101, 101, 101), 0),
    "16 bit TIFF": (lambda: encode(grey_16_bit(257 * 200), "TIFF"), (200, 200, 200), 0),
    "float TIFF": (lambda: encode(Image.new("F", (6, 4), 0.2), "TIFF"), (51, 51, 51), 0),
    "YCbCr TIFF": (lambda: encode(Image.new("RGB", (16, 16), RED).convert("YCbCr"), "TIFF"), RED, 3),
    "LAB TIFF": (lambda: encode(Image.new("LAB", (6, 4), (255, 128, 128)), "TIFF"), WHITE, 3),
    "animated GIF": (lambda: two_frames("GIF"), RED, 0),
    "animated WEBP": (lambda: two_frames("WEBP"), RED, 0),
    "animated PNG": (lambda: two_frames("PNG"), RED, 0),
    "two pages": (lambda: two_frames("TIFF"), RED, 0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_one_treatment(kind: str, tmp_path: Path) -> None:
    make, expected, tolerance = KINDS[kind]
    path = tmp_path / "picture.jpg"  # the suffix must not matter
    path.write_bytes(make())
    image = decode_image(path)
    assert image.mode == "RGB"
    assert np.abs(np.asarray(image).astype(int) - np.array(expected)).max() <= tolerance


def test_path_text_bytes_and_stream_are_equal(tmp_path: Path) -> None:
    content = encode(Image.effect_noise((20, 10), 90).convert("RGB"), "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with path.open("rb") as stream:
        images = [decode_image(source) for source in (path, str(path), content, stream)]
        assert not stream.closed
    assert all(image.tobytes() == images[0].tobytes() for image in images)


def test_16_bit_values_keep_their_order() -> None:
    ramp = Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(512, 128))
    grey = np.asarray(to_rgb(ramp))[..., 0].ravel().astype(int)
    assert (np.diff(grey) >= 0).all()
    assert np.abs(grey - np.arange(65536) / 257).max() <= 0.5


@pytest.mark.parametrize("mode", ["HSV", "RGBa", "RGBX", "PA", "I;16B", "YCbCr"])
def test_to_rgb_knows_modes_that_no_file_has(mode: str) -> None:
    assert to_rgb(Image.new(mode, (3, 2))).mode == "RGB"


def test_to_rgb_returns_rgb_unchanged() -> None:
    image = Image.new("RGB", (3, 2), RED)
    assert to_rgb(image) is image


@pytest.mark.parametrize(
    ("image", "match"),
    [
        (Image.new("F", (2, 2), 1.5), "values outside 0 to 1; save the picture with 8 or 16 bits"),
        (Image.new("F", (2, 2), float("nan")), "values outside 0 to 1; save the picture with 8 or 16 bits"),
        (Image.new("I", (2, 2), 65536), "values outside 0 to 65535; save the picture with 8 or 16 bits"),
        (Image.new("La", (2, 2)), 'pixels of the kind "La" are not known; save the picture as 8 bit grey, RGB or RGBA'),
    ],
)
def test_to_rgb_refuses_what_it_cannot_know(image: Image.Image, match: str) -> None:
    with pytest.raises(ImageError, match=match) as error:
        to_rgb(image)
    assert error.value.code == "unsupported_format"


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(orientation: int, format: str) -> None:
    upright = Image.new("RGB", (32, 16))
    upright.paste(RED, (0, 0, 16, 8))  # red quarter at the upper left
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    camera = upright if orientation == 1 else upright.transpose(stored[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}.get(format, {})
    image = decode_image(encode(camera, format, exif=exif, **options))
    assert image.size == (32, 16)
    assert np.abs(np.asarray(image).astype(int) - np.asarray(upright)).max() <= 8
    assert not image.getexif()


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_orientation_that_means_nothing_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert decode_image(encode(Image.new("RGB", (8, 4), RED), "PNG", exif=exif)).size == (8, 4)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_orientation_block_is_ignored() -> None:
    content = encode(Image.new("RGB", (8, 4), RED), "JPEG", exif=b"Exif\0\0II*\0garbage that is no tag block")
    assert decode_image(content).size == (8, 4)


def noise(size: int = 64) -> Image.Image:
    return Image.fromarray(np.random.RandomState(0).randint(0, 256, (size, size, 3), dtype=np.uint8))


def half(format: str) -> bytes:
    content = encode(noise(), format)
    return content[: len(content) // 2]


def png_with_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    )


def broken_checksum() -> bytes:
    content = bytearray(encode(noise(), "PNG"))
    content[20] ^= 255
    return bytes(content)


# name -> (content, code, the remedy part of the message)
DAMAGED: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "zero bytes": (lambda: b"", "empty", "the file is empty; copy it again or leave it out"),
    "text": (
        lambda: b"not a picture",
        "unsupported_format",
        "expected JPEG, PNG, .*, got bytes of another kind; convert it",
    ),
    "SVG": (lambda: b"<svg xmlns='x'/>", "unsupported_format", "got bytes of another kind; convert it"),
    "PDF": (lambda: encode(noise(), "PDF"), "unsupported_format", "got bytes of another kind; convert it"),
    "ICO, not on the list": (
        lambda: encode(noise(), "ICO"),
        "unsupported_format",
        "got bytes of another kind; convert it",
    ),
    "half a JPEG": (lambda: half("JPEG"), "truncated", "ends too early .*; copy it again"),
    "half a PNG": (lambda: half("PNG"), "truncated", "ends too early .*; copy it again"),
    "half a GIF": (lambda: half("GIF"), "truncated", "ends too early .*; copy it again"),
    "half a BMP": (lambda: half("BMP"), "truncated", "ends too early .*; copy it again"),
    "half a PPM": (lambda: half("PPM"), "truncated", "ends too early .*; copy it again"),
    "half a WEBP": (lambda: half("WEBP"), "unreadable", "cannot be decoded .*; save it again"),
    "half a TIFF": (lambda: half("TIFF"), "truncated", "ends too early .*; copy it again"),
    "JPEG without pixels": (lambda: b"\xff\xd8\xff\xe0", "unreadable", "cannot be decoded .*; save it again"),
    "PNG with a wrong checksum": (broken_checksum, "unreadable", "cannot be decoded .*; save it again"),
    "bomb": (
        lambda: png_with_header(60000, 50000),
        "too_large",
        "60000 x 50000 pixels are over the limit of 134217728 pixels; shrink it",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
@pytest.mark.filterwarnings("error")
def test_damage_has_a_code_and_a_remedy(kind: str, tmp_path: Path) -> None:
    make, code, match = DAMAGED[kind]
    path = tmp_path / "picture.jpg"
    path.write_bytes(make())
    with pytest.raises(ImageError, match=rf'picture\.jpg"[: ].*{match}') as error:
        decode_image(path)
    assert error.value.code == code
    assert code in IMAGE_ERROR_CODES


def test_limit_is_inclusive_and_can_be_set() -> None:
    content = encode(noise(10), "PNG")
    assert decode_image(content, max_pixels=100).size == (10, 10)
    with pytest.raises(ImageError, match='"picture": 10 x 10 pixels are over the limit of 99 pixels') as error:
        decode_image(content, max_pixels=99)
    assert error.value.code == "too_large"


@pytest.mark.parametrize("format", ["PNG", "TIFF", "GIF"])
@pytest.mark.filterwarnings("error")
def test_pillows_own_limit_neither_warns_nor_refuses(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode(noise(10), format)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60)
    assert decode_image(content, max_pixels=100).size == (10, 10)


def test_pillows_refusal_is_reported_as_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encode(noise(10), "WEBP")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageError, match=r"is larger than Pillow allows .*; shrink it") as error:
        decode_image(content)
    assert error.value.code == "too_large"


def test_truncated_pictures_stay_errors_whatever_the_order() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    whole = encode(noise(), "JPEG")
    with pytest.raises(ImageError):
        decode_image(whole[:-200])
    assert decode_image(whole).size == (64, 64)


def test_paths_that_are_no_picture_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"does not exist; check the path") as error:
        decode_image(tmp_path / "absent.jpg")
    assert error.value.code == "not_found"
    with pytest.raises(ImageError, match=r"is a folder; expected a picture file") as error:
        decode_image(tmp_path)
    assert error.value.code == "is_a_directory"
    with pytest.raises(ImageError, match=r"cannot be opened") as error:
        decode_image("a\0b.jpg")
    assert error.value.code == "unreadable"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="is a device or a pipe; expected a picture file") as error:
        decode_image(tmp_path / "pipe.jpg")
    assert error.value.code == "unreadable"


def test_closed_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "closed.png"
    path.write_bytes(encode(noise(4), "PNG"))

    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(builtins, "open", refuse)  # root may read everything, so a mode would not do
    with pytest.raises(ImageError, match="may not be read; change its permissions") as error:
        decode_image(path)
    assert error.value.code == "permission"


def test_error_survives_the_way_from_a_worker_process() -> None:
    copy = pickle.loads(pickle.dumps(ImageError("broken", "truncated")))
    assert (type(copy), str(copy), copy.code) == (ImageError, "broken", "truncated")


def test_every_single_flipped_byte_is_either_decoded_or_an_image_error() -> None:
    for format in ("PNG", "GIF", "TIFF", "BMP", "PPM", "WEBP", "JPEG"):
        content = encode(noise(8), format)
        for at in range(0, min(len(content), 120)):
            damaged = content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    decode_image(damaged, max_pixels=10_000)
            except ImageError as error:
                assert error.code in IMAGE_ERROR_CODES
