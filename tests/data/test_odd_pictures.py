"""Odd files, each against the pixels that went into it: read rightly or refused by name, never otherwise.

The pixels are known because tifffile, or bytes laid by hand, wrote them: nothing of Pillow has a part in what is
expected, but for the conversion of CMYK, which is documented as Pillow's.
"""

from __future__ import annotations

import functools
import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from grmp_hf.data.damage import is_damaged_jpeg
from grmp_hf.data.formats import find_decoder
from grmp_hf.data.images import ImageError, decode_image
from grmp_hf.data.opened import decode_opened

Pixels = NDArray[Any]
_NOISE = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
RGB: Pixels = np.asarray(Image.fromarray(_NOISE).resize((40, 30), Image.Resampling.BICUBIC))
GREY: Pixels = RGB[..., 0]
ALPHA: Pixels = np.repeat(np.array([0, 128, 255], np.uint8), 10)[:, None].repeat(40, axis=1)


def wide(pixels: Pixels) -> Pixels:
    return pixels.astype(np.uint16) * 257


def over_white(pixels: Pixels) -> Pixels:
    share = (ALPHA / 255).reshape(ALPHA.shape + (1,) * (pixels.ndim - 2))
    return np.rint(pixels * share + 255 * (1 - share))  # type: ignore[no-any-return]


def tiff(pixels: Pixels, **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, pixels, **options)
    return stream.getvalue()


def png(pixels: Pixels, colour: int, transparent: Any = None) -> bytes:
    """A PNG laid by hand: colour type 0 grey, 2 RGB, 4 grey with alpha, 6 RGB with alpha."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    depth = 8 * pixels.dtype.itemsize
    rows = b"".join(b"\0" + row.astype(f">u{pixels.dtype.itemsize}").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, colour, 0, 0, 0)
    extra = b"" if transparent is None else chunk(b"tRNS", np.atleast_1d(transparent).astype(">u2").tobytes())
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def transparent_case(pixels: Pixels, shown: Pixels, colour: int) -> tuple[bytes, Pixels]:
    key = pixels[4, 4]
    hit = (pixels == key).all(-1, keepdims=True) if pixels.ndim == 3 else pixels == key
    return png(pixels, colour, key), np.where(hit, 255, shown)


def renamed(content: bytes, tag: int, other: int = 65000) -> bytes:
    """A little-endian TIFF one of whose tags is called otherwise."""
    data, (start,) = bytearray(content), struct.unpack_from("<I", content, 4)
    for entry in range(struct.unpack_from("<H", content, start)[0]):
        if struct.unpack_from("<H", content, start + 2 + 12 * entry)[0] == tag:
            struct.pack_into("<H", data, start + 2 + 12 * entry, other)
    return bytes(data)


Case = tuple[str, bytes, Pixels | None]
"""Name, content, and what has to be seen; None where the file has to be refused."""


def tiff_cases() -> Iterator[Case]:
    kinds: dict[str, tuple[Pixels, Pixels, dict[str, Any]]] = {
        "grey 8": (GREY, GREY, {"photometric": "minisblack"}),
        "grey 16": (wide(GREY), GREY, {"photometric": "minisblack"}),
        "white is zero 8": (255 - GREY, GREY, {"photometric": "miniswhite"}),
        "white is zero 16": (65535 - wide(GREY), GREY, {"photometric": "miniswhite"}),
        "rgb 8": (RGB, RGB, {"photometric": "rgb"}),
        "rgb 16": (wide(RGB), RGB, {"photometric": "rgb"}),
    }
    for (name, (stored, seen, options)), order, big in itertools.product(kinds.items(), "<>", (False, True)):
        layouts: dict[str, dict[str, Any]] = {
            "strips": {"rowsperstrip": 7},
            "one strip": {},
            "tiles": {"tile": (16, 16)},
            "deflate": {"compression": "zlib"},
            "deflate, predicted": {"compression": "zlib", "predictor": True},
        }
        for layout, how in layouts.items():
            content = tiff(stored, byteorder=order, bigtiff=big, **options, **how)
            yield f"TIFF {name}, {order}, {'big, ' if big else ''}{layout}", content, seen
    bits = GREY < 128
    yield "TIFF white is zero 1", tiff(bits, photometric="miniswhite"), np.where(bits, 0, 255)
    yield "TIFF black is zero 1", tiff(~bits, photometric="minisblack"), np.where(bits, 0, 255)
    apart = {"photometric": "rgb", "planarconfig": "separate"}
    yield "TIFF planes 8", tiff(RGB.transpose(2, 0, 1), **apart), RGB
    for order in "<>":
        yield f"TIFF planes 16 {order}", tiff(wide(RGB).transpose(2, 0, 1), byteorder=order, **apart), None
    joined = {"photometric": "rgb", "planarconfig": "contig"}
    held = {"photometric": "minisblack", "planarconfig": "contig"}
    premultiplied = np.rint(RGB * (ALPHA / 255)[..., None]).astype(np.uint8)
    for deep in (lambda pixels: pixels, wide):
        four, two = np.dstack([RGB, ALPHA]), np.dstack([GREY, ALPHA])
        depth = "16" if deep is wide else "8"
        yield f"TIFF alpha {depth}", tiff(deep(four), extrasamples=["unassalpha"], **joined), over_white(RGB)
        multiplied = deep(np.dstack([premultiplied, ALPHA]))
        yield f"TIFF premultiplied {depth}", tiff(multiplied, extrasamples=["assocalpha"], **joined), over_white(RGB)
        infrared = tiff(deep(four), extrasamples=["unspecified"], **joined)
        yield f"TIFF a fourth channel {depth}", infrared, RGB
        yield f"TIFF a fourth channel untold {depth}", renamed(infrared, 338), None
        yield f"TIFF grey alpha {depth}", tiff(deep(two), extrasamples=["unassalpha"], **held), over_white(GREY)
        yield f"TIFF grey, a second channel {depth}", tiff(deep(two), extrasamples=["unspecified"], **held), GREY
        untold = renamed(tiff(deep(two), extrasamples=["unspecified"], **held), 338)
        yield f"TIFF grey, a second channel untold {depth}", untold, None
        five = np.dstack([four, ALPHA])
        yield f"TIFF five channels {depth}", tiff(deep(five), extrasamples=["unspecified"] * 2, **joined), RGB
    yield "TIFF float", tiff((GREY / 255).astype(np.float32), photometric="minisblack"), GREY
    for kind in (np.float16, np.float64):
        yield f"TIFF {kind.__name__}", tiff((GREY / 255).astype(kind), photometric="minisblack"), GREY
    yield "TIFF float rgb", tiff((RGB / 255).astype(np.float32), photometric="rgb"), RGB
    for number in (np.int8, np.int16, np.int32, np.uint32):
        yield f"TIFF {number.__name__}", tiff((GREY // 2).astype(number), photometric="minisblack"), None
    colours = (np.arange(256, dtype=np.uint16)[::-1] * 257)[None].repeat(3, axis=0)
    yield "TIFF palette", tiff(255 - GREY, photometric="palette", colormap=colours), GREY
    cmyk = np.asarray(Image.fromarray(RGB).convert("CMYK"))
    seen = np.asarray(Image.frombytes("CMYK", (40, 30), cmyk.tobytes()).convert("RGB"))
    yield "TIFF CMYK 8", tiff(cmyk, photometric="separated"), seen
    yield "TIFF CMYK 16", tiff(wide(cmyk), photometric="separated"), seen
    yield "TIFF two pages", tiff(np.stack([RGB, 255 - RGB]), photometric="rgb"), RGB
    yield "TIFF preview", tiff(RGB, photometric="rgb", subfiletype=1), None
    yield "TIFF sensor", tiff(wide(GREY), photometric="cfa"), None
    yield "TIFF DNG", tiff(RGB, photometric="rgb", extratags=[(50706, "B", 4, (1, 4, 0, 0), True)]), None
    makers = [(271, "s", 0, "NIKON", True), (65000, "I", 1, 8, True)]
    yield "TIFF raw with directories", renamed(tiff(RGB, photometric="rgb", extratags=makers), 65000, 330), None


def png_cases() -> Iterator[Case]:
    for depth, deep in (("8", lambda pixels: pixels), ("16", wide)):
        yield f"PNG grey {depth}", png(deep(GREY), 0), GREY
        yield f"PNG rgb {depth}", png(deep(RGB), 2), RGB
        yield f"PNG grey alpha {depth}", png(deep(np.dstack([GREY, ALPHA])), 4), over_white(GREY)
        yield f"PNG rgb alpha {depth}", png(deep(np.dstack([RGB, ALPHA])), 6), over_white(RGB)
        yield f"PNG grey transparent {depth}", *transparent_case(deep(GREY), GREY, 0)
        yield f"PNG rgb transparent {depth}", *transparent_case(deep(RGB), RGB, 2)


def shallow_cases() -> Iterator[Case]:
    """Depths that decoders read as if they were others."""
    yield "PNG rgb transparent, 16 bit keys", png(wide(RGB) ^ 0x0055, 2, (wide(RGB) ^ 0x0055)[4, 4]), None
    twelve = tiff(wide(GREY), photometric="minisblack")
    yield (
        "TIFF 12 bit",
        twelve.replace(struct.pack("<HHIHH", 258, 3, 1, 16, 0), struct.pack("<HHIHH", 258, 3, 1, 12, 0)),
        None,
    )


def laid_tiff(tags: dict[int, tuple[int, ...]], data: bytes) -> bytes:
    """A little-endian TIFF laid by hand: tags of 32 bit numbers, whose data begin at byte 8."""
    tags = {256: (40,), 257: (30,), 259: (1,), 273: (8,), 279: (len(data),), **tags}
    directory, beyond = 8 + len(data), b""
    entries = b""
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(packed) > 4:
            place = directory + 6 + 12 * len(tags) + len(beyond)
            packed, beyond = struct.pack("<I", place), beyond + packed
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    head = b"II*\0" + struct.pack("<I", directory) + data
    return head + struct.pack("<H", len(tags)) + entries + bytes(4) + beyond


COLOUR = {258: (8, 8, 8), 262: (2,), 277: (3,)}
HALF = RGB[:15].tobytes()
SHRUNK = zlib.compress(HALF)


def without(content: bytes, *tags: int) -> bytes:
    """A TIFF whose tags of that number nobody looks for."""
    for place, tag in enumerate(tags):
        content = renamed(content, tag, 65000 + place)
    return content


def lacking_tiffs() -> Iterator[tuple[str, str, bytes]]:
    """Name, code and content of files whose pixels are not all there, or not what their decoder takes them for."""
    subsampled = {258: (8, 8, 8), 262: (6,), 277: (3,), 530: (2, 2)}
    yield "YCbCr 2x2", "unsupported_format", laid_tiff(subsampled, bytes(40 * 30 * 3 // 2) + bytes(4000))
    yield "YCbCr untold", "unsupported_format", laid_tiff({**subsampled, 530: (2, 1)}, bytes(40 * 30 * 2) + bytes(4000))
    yield "a short strip", "truncated", laid_tiff({**COLOUR, 279: (len(HALF),)}, RGB.tobytes())
    strips = {**COLOUR, 278: (15,)}
    yield "one strip of two", "truncated", laid_tiff({**strips, 279: (len(HALF),)}, RGB.tobytes())
    yield "one deflated strip of two", "truncated", laid_tiff({**strips, 259: (8,)}, SHRUNK)
    left_out = {273: (8, 0), 279: (len(HALF), 0)}
    yield "a sparse strip", "unsupported_format", laid_tiff({**strips, **left_out}, HALF)
    left_out = {259: (8,), 273: (8, 0), 279: (len(SHRUNK), 0)}
    yield "a sparse deflated strip", "unsupported_format", laid_tiff({**strips, **left_out}, SHRUNK)
    offsets = tuple(8 + 768 * at for at in range(6))
    tiles = {**COLOUR, 257: (90,), 322: (16,), 323: (16,), 324: offsets, 325: (768,) * 6}
    yield "6 tiles of 18", "truncated", without(laid_tiff(tiles, bytes(768 * 6)), 273, 279)
    yield "no photometric", "unsupported_format", laid_tiff({258: (8,), 277: (1,)}, GREY.tobytes())
    reversed_bits = {258: (16,), 262: (1,), 277: (1,), 266: (2,)}
    yield "16 bits reversed", "unsupported_format", laid_tiff(reversed_bits, wide(GREY).tobytes())


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    "code, content", [case[1:] for case in lacking_tiffs()], ids=[case[0] for case in lacking_tiffs()]
)
def test_a_tiff_that_lacks_a_part_is_refused(code: str, content: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode_image(content)
    assert caught.value.code == code


def sound_tiffs() -> Iterator[tuple[str, bytes]]:
    picture = Image.fromarray(RGB)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        for options in ({}, {"tiffinfo": {278: 8}}):
            stream = io.BytesIO()
            picture.save(stream, "TIFF", compression=compression, **options)
            yield f"{compression} {options}", stream.getvalue()
    yield "tiles", tiff(RGB, photometric="rgb", tile=(16, 16))
    yield "planes in strips", tiff(RGB.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", rowsperstrip=7)
    yield "no counts", renamed(tiff(RGB, photometric="rgb"), 279)
    yield "strips that hold more", laid_tiff({**COLOUR, 278: (2**32 - 1,), 279: (4000,)}, RGB.tobytes() + bytes(400))
    yield "a count of 0", laid_tiff({**COLOUR, 279: (0,)}, RGB.tobytes())
    ycbcr = np.asarray(picture.convert("YCbCr")).tobytes()
    yield "YCbCr 1x1", laid_tiff({258: (8, 8, 8), 262: (6,), 277: (3,), 530: (1, 1)}, ycbcr)


@pytest.mark.parametrize("name, content", list(sound_tiffs()), ids=[case[0] for case in sound_tiffs()])
def test_sound_tiffs_of_every_kind_are_read(name: str, content: bytes) -> None:
    loss = 40 if "jpeg" in name else 3
    assert np.abs(np.asarray(decode_image(content)).astype(int) - RGB).max() <= loss


@pytest.mark.parametrize("mode", ["1", "L"])
def test_fax_and_grey_of_pillow_are_read(mode: str) -> None:
    for compression in ("raw", "group4", "tiff_lzw") if mode == "1" else ("raw", "tiff_lzw"):
        stream = io.BytesIO()
        Image.fromarray(GREY).convert(mode).save(stream, "TIFF", compression=compression)
        assert decode_image(stream.getvalue()).size == (40, 30)


@pytest.mark.parametrize("white", [255, 65535])
def test_a_colour_map_of_8_bits_is_read_as_one(white: int) -> None:
    colours = tuple(number * white // 255 for number in range(255, -1, -1)) * 3
    content = laid_tiff({258: (8,), 262: (3,), 277: (1,), 320: colours}, (255 - GREY).tobytes())
    assert np.array_equal(np.asarray(decode_image(content))[..., 0], GREY)


CASES = [*tiff_cases(), *png_cases(), *shallow_cases()]
_READ = 110  # of them at least; the others may be refused


def opened(content: bytes, folder: Path, *, file: bool, loaded: bool) -> Image.Image:
    """A picture as Pillow opens it, of a file or of bytes."""
    path = folder / "picture"
    path.write_bytes(content)
    image = Image.open(path if file else io.BytesIO(content))
    if loaded:
        image.load()
    return image


def by_pillow(content: bytes, folder: Path, *, file: bool, loaded: bool) -> Image.Image:
    with opened(content, folder, file=file, loaded=loaded) as image:
        return decode_opened(image)


Door = Callable[[bytes, Path], Image.Image]
DOORS: dict[str, Door] = {
    "bytes": lambda content, _: decode_image(content),
    "Pillow, file": functools.partial(by_pillow, file=True, loaded=False),
    "Pillow, file, loaded": functools.partial(by_pillow, file=True, loaded=True),
    "Pillow, bytes": functools.partial(by_pillow, file=False, loaded=False),
    "Pillow, bytes, loaded": functools.partial(by_pillow, file=False, loaded=True),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_what_is_read_is_what_was_written(door: Door, tmp_path: Path) -> None:
    wrong, read = [], 0
    for name, content, expected in CASES:
        try:
            found = np.asarray(door(content, tmp_path)).astype(int)
        except (OSError, SyntaxError, ValueError):  # Pillow's own, which opens and loads before it is our turn
            continue
        except ImageError as error:
            if expected is None and error.code not in ("unsupported_format", "unreadable"):
                wrong.append(f"{name}: {error}")
            continue
        read += 1
        if expected is None:
            wrong.append(f"{name}: read, and should be refused")
            continue
        seen = expected[..., None].repeat(3, axis=2) if expected.ndim == 2 else expected
        if found.shape != seen.shape or np.abs(found - seen).max() > 1:
            wrong.append(f"{name}: other pixels")
    assert not wrong
    assert len(CASES) > 160 and read >= _READ


def interlaced(pixels: Pixels) -> tuple[list[bytes], bytes]:
    """Rows of each Adam7 pass with their filter bytes, and the header of an RGB picture."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [pixels[top::down, left::across] for left, top, across, down in passes]
    rows = [b"".join(b"\0" + row.tobytes() for row in part if row.size) for part in parts]
    return rows, struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)


def laid_png(head: bytes, rows: bytes, palette: bytes = b"") -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    colours = chunk(b"PLTE", palette) if palette else b""
    shrunk = zlib.compress(rows)
    data = chunk(b"IDAT", shrunk[:50]) + chunk(b"IDAT", shrunk[50:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + colours + data + chunk(b"IEND", b"")


@pytest.mark.parametrize("height", [1, 2, 3, 30])
@pytest.mark.parametrize("bottom", ["black", "seen"])
def test_a_png_with_fewer_rows_than_its_header_says_ends_too_early(height: int, bottom: str) -> None:
    pixels = RGB[:height].copy()
    if bottom == "black":
        pixels[-1] = 0
    passes, head = interlaced(pixels)
    rows = [b"\0" + row.tobytes() for row in pixels]
    for parts, header in ((rows, head[:-1] + b"\0"), (passes, head)):
        whole = b"".join(parts)
        assert np.array_equal(np.asarray(decode_image(laid_png(header, whole))), pixels)
        for short in (whole[:-1], whole[: len(whole) // 2], b""):
            with pytest.raises(ImageError) as caught:
                decode_image(laid_png(header, short))
            assert caught.value.code == "truncated"


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_png_that_uses_a_colour_without_its_palette_is_unreadable(depth: int) -> None:
    head, highest = struct.pack(">IIBBBBB", 8, 2, depth, 3, 0, 0, 0), 2**depth - 1
    rows = (b"\0" + bytes([255] * depth)) * 2
    palette = bytes(range(256)) * 3
    assert decode_image(laid_png(head, rows, palette[: 3 * (highest + 1)])).size == (8, 2)
    with pytest.raises(ImageError, match=f"colour {highest} of a palette of {highest}") as caught:
        decode_image(laid_png(head, rows, palette[: 3 * highest]))
    assert caught.value.code == "unreadable"


def jpeg(quality: int = 90, **options: Any) -> bytes:
    stream = io.BytesIO()
    large = Image.fromarray(RGB).resize((160, 120), Image.Resampling.BICUBIC)
    large.convert(options.pop("mode", "RGB")).save(stream, "JPEG", quality=quality, **options)
    return stream.getvalue()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "lost sector": lambda data: data[: len(data) // 2] + bytes(512) + data[len(data) // 2 + 512 :],
    "other data": lambda data: data[: len(data) // 2] + RGB.tobytes()[:512] + data[len(data) // 2 + 512 :],
    "missing sector": lambda data: data[: len(data) // 2] + data[len(data) // 2 + 700 :],
    "early end": lambda data: data[: len(data) * 2 // 3] + b"\xff\xd9",
}


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}, {"mode": "L"}], ids=str)
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_lost_data_of_a_jpeg_are_told(damage: Callable[[bytes], bytes], options: dict[str, Any]) -> None:
    said: list[str] = []
    sound = jpeg(**options)
    decode_image(sound, warn=said.append)
    decode_image(sound + b"trailing bytes", warn=said.append)
    assert not said and not is_damaged_jpeg(sound)
    try:
        decode_image(damage(sound), warn=said.append)
    except ImageError:  # other data may hold a marker that no decoder takes
        return
    assert said == ["damaged"]


@pytest.mark.parametrize("loaded", [False, True])
def test_lost_data_of_a_jpeg_of_pillows_are_told(loaded: bool, tmp_path: Path) -> None:
    said: list[str] = []
    decode_opened(opened(jpeg(), tmp_path, file=True, loaded=loaded), warn=said.append)
    assert not said
    decode_opened(opened(DAMAGE["lost sector"](jpeg()), tmp_path, file=True, loaded=loaded), warn=said.append)
    assert said == ["damaged"]


def test_a_shallow_transparent_colour_is_refused_whatever_the_door(tmp_path: Path) -> None:
    content = bytearray(png(GREY[:, :10].copy(), 0, 3))
    content[16:20], content[24] = struct.pack(">I", 40), 2  # ten bytes are 40 pixels of two bits
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    for door in DOORS.values():
        with pytest.raises(ImageError, match="a transparent colour"):
            door(bytes(content), tmp_path)


def test_a_damaged_png_of_pillows_is_never_scored_in_part(tmp_path: Path) -> None:
    content = bytearray(png(np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8), 2))
    content[len(content) // 2] ^= 255
    with pytest.raises(ImageError):
        decode_image(bytes(content))
    for file in (True, False):
        with pytest.raises(ImageError):
            by_pillow(bytes(content), tmp_path, file=file, loaded=False)


def test_what_was_drawn_into_a_picture_of_pillows_counts(tmp_path: Path) -> None:
    image = opened(png(RGB, 2), tmp_path, file=True, loaded=True)
    image.paste((1, 2, 3), (0, 0, 40, 30))
    assert decode_opened(image).getpixel((5, 5)) == (1, 2, 3)


@pytest.mark.parametrize("options", [{"mode": "CMYK"}, {"subsampling": 0}, {"subsampling": 2}, {"optimize": True}])
def test_sound_jpegs_of_every_kind_are_not_damaged(options: dict[str, Any]) -> None:
    assert not is_damaged_jpeg(jpeg(**options))
    assert not is_damaged_jpeg(png(RGB, 2))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG", "AVIF"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_what_ends_too_early_is_never_read(form: str, share: float) -> None:
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, form)
    content = stream.getvalue()
    assert decode_image(content).size == (40, 30)
    with pytest.raises(ImageError) as caught:
        decode_image(content[: int(len(content) * share)])
    assert caught.value.code in ("truncated", "unreadable", "unsupported_format")


def test_heic_is_read_where_its_decoder_is_and_else_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    stream = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(RGB)).save(stream, quality=-1, chroma=444)
    content = stream.getvalue()
    assert np.abs(np.asarray(decode_image(content)).astype(int) - RGB).max() <= 2  # through YCbCr of 8 bits
    monkeypatch.setattr("grmp_hf.data.formats._heif", lambda: None)
    with pytest.raises(ImageError, match=r"pip install 'grmp_hf\[heic\]'"):
        decode_image(content)


def test_formats_that_are_not_read_are_named() -> None:
    for prefix in (b"\xff\x0a1234", b"\0\0\0\x0cJXL \r\n\x87\n"):
        with pytest.raises(ImageError, match="JXL is not read; convert it to JPEG or PNG"):
            find_decoder(prefix)


def test_what_came_in_the_place_of_a_picture_is_named() -> None:
    for content, said in (
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "the pointer of a file in Git LFS; fetch",
        ),
        (b"<!DOCTYPE html><html>403</html>", "a web page; download the file itself"),
        (b"PK\x03\x04", "bytes of another kind; convert it"),
    ):
        with pytest.raises(ImageError, match=said):
            decode_image(content)


def bmp32(alpha: int, header: int = 124) -> bytes:
    """A BMP of 32 bits with masks, of which the fourth byte is alpha."""
    height, width = GREY.shape
    pixels = np.dstack([RGB[..., ::-1], np.full((height, width), alpha, np.uint8)])[::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", header, width, height, 1, 32, 3, len(pixels), 2835, 2835, 0, 0)
    head += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs"
    head += bytes(header - len(head))
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(pixels), 0, 0, 14 + len(head)) + head + pixels


@pytest.mark.parametrize("header", [108, 124])
@pytest.mark.parametrize("alpha", [0, 255])
def test_an_alpha_of_a_bmp_that_nobody_filled_in_is_none(alpha: int, header: int) -> None:
    np.testing.assert_array_equal(decode_image(bmp32(alpha, header)), RGB)
    with Image.open(io.BytesIO(bmp32(alpha, header))) as image:
        np.testing.assert_array_equal(decode_opened(image), RGB)


def test_a_gif_smaller_than_its_screen_is_on_white() -> None:
    stream = io.BytesIO()
    black = Image.fromarray(RGB).quantize(64)
    black.putpalette([0, 0, 0, *black.getpalette()[3:]])  # type: ignore[index]
    black.save(stream, "GIF", optimize=False)
    content = bytearray(stream.getvalue())
    struct.pack_into("<HH", content, 6, 60, 50)
    found = np.asarray(decode_image(bytes(content)))
    assert found.shape == (50, 60, 3) and (found[30:] == 255).all() and (found[:, 40:] == 255).all()
    np.testing.assert_array_equal(found[:30, :40], black.convert("RGB"))
    second = Image.new("P", (40, 30), 1)
    animated = io.BytesIO()
    black.save(animated, "GIF", save_all=True, append_images=[second.crop((0, 0, 20, 20))], optimize=False)
    with Image.open(animated) as image:
        image.seek(1)  # the frame that somebody has chosen, as Pillow puts it together
        np.testing.assert_array_equal(decode_opened(image), image.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "YCbCr"])
def test_lost_data_of_a_jpeg_in_a_tiff_are_told(mode: str) -> None:
    stream = io.BytesIO()
    picture = Image.fromarray(RGB).resize((96, 64)).convert(mode)
    picture.save(stream, "TIFF", compression="jpeg", strip_size=96 * 16 * len(picture.getbands()))
    content = bytearray(stream.getvalue())
    said: list[str] = []
    decode_image(bytes(content), warn=said.append)
    assert not said
    with tifffile.TiffFile(io.BytesIO(bytes(content))) as file:
        assert len(file.pages[0].dataoffsets) > 2  # type: ignore[union-attr]
        start, length = file.pages[0].dataoffsets[1], file.pages[0].databytecounts[1]  # type: ignore[union-attr]
    content[start + length // 2 : start + length // 2 + 3] = b"\xff\xc0\xff"
    decode_image(bytes(content), warn=said.append)
    with Image.open(io.BytesIO(bytes(content))) as image:
        decode_opened(image, warn=said.append)
    assert said == ["damaged"] * 2


def test_float_colours_are_of_a_kind_that_is_not_known() -> None:
    with pytest.raises(ImageError, match="save it as grey or RGB of 8 or 16 bits") as caught:
        decode_image(tiff(RGB.astype(np.float32) / 255, photometric="rgb"))
    assert caught.value.code == "unsupported_format"
