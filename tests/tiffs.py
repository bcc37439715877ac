"""TIFF files byte by byte, in the variants that cameras write and image libraries do not."""

import struct

import numpy as np


def tiff(pixels, bits=None, photometric=1, order="<", big=False, rows=None, tile=None, more=(), following=()):
    """One gray page after another.

    Args:
        pixels: (H, W); uint8, uint16 or float32.
        bits: Of a sample; fewer than the pixels' are packed.
        photometric: 0 where zero stands for white, else 1.
        order: "<" or ">".
        big: Whether the file is a BigTIFF.
        rows: Of a strip; None for one strip.
        tile: Side of the tiles, instead of strips.
        more: Further tags, (tag, type, value).
        following: Further pages, tuples of pixels and of tags.
    """
    data = bytearray(b"\0" * (16 if big else 8))
    data[: 4 if not big else 8] = (b"II" if order == "<" else b"MM") + struct.pack(
        order + ("H" if not big else "HHH"), *((43, 8, 0) if big else (42,))
    )
    link = 8 if big else 4
    for image, tags in ((pixels, more), *following):
        link = _page(data, link, image, bits, photometric, order, big, rows, tile, tags)
    return bytes(data)


def _page(data, link, pixels, bits, photometric, order, big, rows, tile, more):
    height, width = pixels.shape
    bits = bits or 8 * pixels.itemsize
    if tile is None:
        rows = rows or height
        parts = [pixels[y : y + rows] for y in range(0, height, rows)]
    else:
        parts = [
            np.pad(part, ((0, tile - part.shape[0]), (0, tile - part.shape[1])))
            for y in range(0, height, tile)
            for x in range(0, width, tile)
            for part in [pixels[y : y + tile, x : x + tile]]
        ]
    places, sizes = [], []
    for part in parts:
        places.append(len(data))
        data += _packed(part, bits, order)
        sizes.append(len(data) - places[-1])
    long = 16 if big else 4
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric), (277, 3, 1)]
    tags += [(339, 3, 3 if pixels.dtype.kind == "f" else 1)]
    if tile is None:
        tags += [(273, long, places), (278, 4, rows), (279, long, sizes)]
    else:
        tags += [(322, 4, tile), (323, 4, tile), (324, long, places), (325, long, sizes)]
    entries = b""
    tags = {tag: (kind, value) for tag, kind, value in (*tags, *more)}
    for tag, (kind, value) in sorted(tags.items()):
        values = value if isinstance(value, list) else [value]
        content = struct.pack(order + {3: "H", 4: "I", 16: "Q"}[kind] * len(values), *values)
        inline = 8 if big else 4
        if len(content) > inline:
            at = len(data)
            data += content
            content = struct.pack(order + ("Q" if big else "I"), at)
        entries += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, len(values)) + content.ljust(inline, b"\0")
    at = len(data)
    struct.pack_into(order + ("Q" if big else "I"), data, link, at)
    data += struct.pack(order + ("Q" if big else "H"), len(tags)) + entries
    link = len(data)
    data += b"\0" * (8 if big else 4)
    return link


def _packed(pixels, bits, order):
    if bits == 8 * pixels.itemsize:
        return pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    digits = ((pixels[..., None].astype(np.uint32) >> np.arange(bits)[::-1]) & 1).astype(np.uint8)
    return np.packbits(digits.reshape(len(pixels), -1), axis=1).tobytes()
