import contextlib
import struct
import zlib

import cv2
import numpy as np
import pytest
from tiffs import tiff

from fusion_gym.files import FileError
from fusion_gym.headers import read_header
from fusion_gym.images import (
    MAX_PIXELS,
    ImageError,
    luminance,
    read_file,
    read_gray,
    read_image,
    restore_colour,
    write_image,
)


def image(shape=(40, 52), dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
@pytest.mark.parametrize("shape", [(40, 52), (41, 53, 3)])
def test_lossless_formats_give_back_what_was_written(tmp_path, suffix, shape):
    write_image(tmp_path / f"a{suffix}", image(shape))
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), image(shape))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("shape", [(40, 52), (41, 53, 3)])
def test_sixteen_bit_is_kept_or_scaled_by_its_full_range(tmp_path, suffix, shape):
    deep = image(shape, np.uint16)
    write_image(tmp_path / f"a{suffix}", deep)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}", keep_depth=True), deep)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), np.rint(deep / 257).astype(np.uint8))


def test_formats_of_8_bit_refuse_16_bit(tmp_path):
    with pytest.raises(ImageError, match="cannot hold 16 bit"):
        write_image(tmp_path / "a.jpg", image(dtype=np.uint16))
    assert not list(tmp_path.iterdir())


def test_alpha_is_ignored(tmp_path):
    with_alpha = image((40, 52, 4))
    cv2.imwrite(str(tmp_path / "a.png"), with_alpha)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), with_alpha[..., :3])


def with_segment(data, body):
    """A JPEG with one more segment, where cameras put EXIF data and thumbnails."""
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def jpeg_with_orientation(path, pixels, orientation):
    """A JPEG whose EXIF block says how the camera was held."""
    data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x0112, 3, 1, orientation) + struct.pack("<I", 0)
    path.write_bytes(with_segment(data, b"Exif\0\0" + tiff))


@pytest.mark.parametrize(("orientation", "turned"), [(1, lambda a: a), (3, lambda a: a[::-1, ::-1]), (6, "clockwise")])
def test_exif_orientation_is_respected(tmp_path, orientation, turned):
    smooth = np.add.outer(np.arange(40) * 2, np.arange(60) * 2).astype(np.uint8)
    jpeg_with_orientation(tmp_path / "a.jpg", smooth, orientation)
    wanted = np.rot90(smooth, -1) if turned == "clockwise" else turned(smooth)
    read = read_image(tmp_path / "a.jpg")
    assert read.shape == wanted.shape
    assert np.abs(read.astype(int) - wanted).max() <= 3


@pytest.mark.parametrize("progressive", [0, 1])
def test_a_jpeg_cut_short_is_refused_before_it_is_decoded(tmp_path, monkeypatch, progressive):
    pixels, flags = image((40, 52, 3)), [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
    data = cv2.imencode(".jpg", pixels, flags)[1].tobytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    read = read_image(path)
    for more in (with_segment(data, data), data + b"\xff\xda, and what else a program keeps behind a picture"):
        path.write_bytes(more)
        np.testing.assert_array_equal(read_image(path), read)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    for whole in (data, with_segment(data, data)):  # the end of a thumbnail is not that of the picture
        path.write_bytes(whole[: len(whole) - 50])
        with pytest.raises(ImageError, match=r"a\.jpg"):
            read_image(path)


def test_fill_bytes_hide_no_claim(tmp_path):
    data = cv2.imencode(".jpg", image())[1].tobytes()
    at = data.index(b"\xff\xc0")
    claim = data[: at + 5] + struct.pack(">HH", 65535, 65535) + data[at + 9 :]
    (tmp_path / "a.jpg").write_bytes(claim[:2] + b"\xff\xff\xff" + claim[2:])
    with pytest.raises(ImageError, match="claims 65535x65535"):
        read_image(tmp_path / "a.jpg")


def test_names_beyond_ascii(tmp_path):
    write_image(tmp_path / "größe 夜.png", image())
    np.testing.assert_array_equal(read_gray(tmp_path / "größe 夜.png"), image())


def huge_png():
    header = struct.pack(">IIBBBBB", 2**15, 2**15, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + b"\0" * 4


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a readable"),
        (b"no image at all", "not a readable"),
        (huge_png(), f"at most {MAX_PIXELS:,}"),
        (cv2.imencode(".png", image())[1].tobytes()[:200], "not a readable"),
        (cv2.imencode(".png", image((8, 30)))[1].tobytes(), "30x8"),
        (cv2.imencode(".tif", image().astype(np.float32))[1].tobytes(), "not a readable"),
    ],
)
def test_a_bad_file_is_named_in_one_sentence(tmp_path, content, says):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert "bad.png" in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)


def test_a_format_that_holds_no_such_size_says_so_and_nothing_else_does(tmp_path, capfd):
    with pytest.raises(ImageError, match=r"a\.jpg cannot hold 70000x16 pixels in its format; use another suffix"):
        write_image(tmp_path / "a.jpg", np.zeros((16, 70000), np.uint8))
    write_image(tmp_path / "a.bmp", np.zeros((16, 70000), np.uint8))
    assert capfd.readouterr() == ("", "")


def test_what_cannot_be_written_says_so(tmp_path):
    with pytest.raises(ImageError, match="no known image suffix"):
        write_image(tmp_path / "a.gifx", image())
    with pytest.raises(FileError, match="no folder"):
        write_image(tmp_path / "nowhere" / "a.png", image())
    with pytest.raises(ImageError, match="cannot be read"):
        read_image(tmp_path / "absent.png")


@pytest.mark.parametrize(("dtype", "levels"), [(np.uint8, 2), (np.uint16, 3)])
def test_colour_is_put_back_on_a_new_luminance(dtype, levels):
    visible = cv2.GaussianBlur(image((40, 52, 3), dtype), (0, 0), 3)
    np.testing.assert_allclose(restore_colour(luminance(visible), visible), visible, atol=levels)
    darker = restore_colour((luminance(visible) * 0.75).astype(dtype), visible)
    assert darker.dtype == dtype
    np.testing.assert_allclose(luminance(darker), luminance(visible) * 0.75, atol=levels)
    gray = luminance(visible)
    assert restore_colour(gray, gray) is gray


TIFFS = [{}, {"rows": 7}, {"tile": 32}, {"big": True}, {"order": ">"}, {"order": ">", "big": True, "rows": 20}]


@pytest.mark.parametrize("layout", TIFFS)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_zero_is_black_also_in_tiff_files_where_it_stands_for_white(tmp_path, bits, layout):
    counts = image((48, 64), np.uint16) >> (16 - bits)
    kind = np.uint8 if bits == 8 else np.uint16
    top = 2**bits - 1
    for name, photometric, stored in (("black", 1, counts), ("white", 0, top - counts)):
        (tmp_path / f"{name}.tif").write_bytes(tiff(stored.astype(kind), bits, photometric, **layout))
        read = read_image(tmp_path / f"{name}.tif", keep_depth=True)
        np.testing.assert_array_equal(read, (counts << (16 - bits if bits > 8 else 0)).astype(kind))


def test_floats_are_refused_whatever_zero_stands_for(tmp_path):
    for photometric in (0, 1):
        (tmp_path / "a.tif").write_bytes(tiff(image().astype(np.float32), photometric=photometric))
        with pytest.raises(ImageError, match="8- or 16-bit"):
            read_image(tmp_path / "a.tif")


def test_pages_are_counted_and_the_first_is_read(tmp_path):
    pages = [image((48, 64), np.uint8, seed) for seed in range(3)]
    small, mask = (pages[1], [(254, 4, 1)]), (pages[2], [(254, 4, 4)])
    for following, count in (([], 1), ([(pages[1], [])] * 2, 3), ([small, mask], 1)):
        for big in (False, True):
            (tmp_path / "a.tif").write_bytes(tiff(pages[0], big=big, following=following))
            read, found = read_file(tmp_path / "a.tif")
            assert found == count
            np.testing.assert_array_equal(read, pages[0])


def test_a_chain_of_pages_that_runs_in_a_circle_ends():
    data = bytearray(tiff(image()))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    assert read_header(bytes(data)).pages == 1


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_frames_of_an_animated_png_are_counted(tmp_path):
    whole = cv2.imencode(".png", image())[1].tobytes()
    (tmp_path / "a.png").write_bytes(whole[:33] + chunk(b"acTL", struct.pack(">II", 5, 0)) + whole[33:])
    assert read_header((tmp_path / "a.png").read_bytes()).pages == 5
    assert read_header(whole).pages == 1


def claims():
    """Headers of few bytes that claim 2³⁰ pixels, by format."""
    side, small = 2**15, image((32, 32))
    for kind in (3, 4):
        more = [(256, kind, side), (257, kind, side)]
        yield f"tiff-{kind}", tiff(small, more=more)
        yield f"big-tiff-{kind}", tiff(small, big=True, more=more)
    yield "big-tiff-16", tiff(small, order=">", big=True, more=[(256, 16, side), (257, 16, side)])
    yield "png", huge_png()
    yield "bmp", b"BM" + bytes(12) + struct.pack("<IiiHHIIiiII", 40, side, -side, 1, 8, 0, 0, 0, 0, 0, 0) + bytes(64)
    yield "os2-bmp", b"BM" + bytes(12) + struct.pack("<IHHHH", 12, side, side, 1, 8) + bytes(64)
    yield "jpeg", b"\xff\xd8\xff\xc0\x00\x0b\x08" + struct.pack(">HH", side, side) + b"\x01\x01\x11\x00\xff\xd9"


@pytest.mark.parametrize(("name", "data"), list(claims()), ids=lambda value: value if isinstance(value, str) else "")
def test_what_a_header_claims_is_known_before_it_is_decoded(tmp_path, monkeypatch, name, data):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match=f"claims 32768x32768 pixels; at most {MAX_PIXELS:,}"):
        read_image(tmp_path / "a.png")


def others():
    """Small files of the formats that OpenCV knows besides, as far as this one does, and claims of some it may know."""
    colour = image((32, 40, 3))
    for suffix in (".webp", ".gif", ".jp2", ".avif", ".hdr", ".pfm", ".pgm", ".ppm", ".pbm", ".pam", ".sr", ".exr"):
        pixels = colour.astype(np.float32) if suffix in (".hdr", ".pfm", ".exr") else colour
        try:
            good, data = cv2.imencode(suffix, pixels[..., 0] if suffix in (".pgm", ".pbm") else pixels)
        except cv2.error:
            continue
        if good:
            yield suffix, data.tobytes()
    size = struct.pack("<I", (2**14 - 1) | (2**14 - 1) << 14)
    yield "webp", b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8L" + struct.pack("<I", 5) + b"/" + size + bytes(12)
    yield "gif", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + bytes(20)
    yield "pgm", b"P5\n99999 99999\n255\n"
    yield "sun", struct.pack(">8I", 0x59A66A95, 65535, 65535, 8, 0, 1, 0, 0)
    yield "exr", b"v/1\x01" + bytes(60)


@pytest.mark.parametrize(("name", "data"), list(others()), ids=lambda value: value if isinstance(value, str) else "")
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_other_formats_are_refused_undecoded_whatever_their_names_say(tmp_path, monkeypatch, name, data, suffix):
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    (tmp_path / f"a{suffix}").write_bytes(data)
    with pytest.raises(ImageError, match=rf"a\{suffix} is an? .* file, whatever its name says; convert it to PNG"):
        read_image(tmp_path / f"a{suffix}")


def test_a_pointer_of_git_lfs_is_named_as_what_it_is(tmp_path):
    (tmp_path / "a.png").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ImageError, match=r"a\.png is a pointer of Git LFS.*git lfs pull"):
        read_image(tmp_path / "a.png")


def test_more_bytes_than_an_image_has_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("fusion_gym.images.MAX_BYTES", 1000)
    (tmp_path / "a.png").write_bytes(bytes(1001))
    with pytest.raises(ImageError, match=r"a\.png has more than 1,000 bytes"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
def test_decoders_write_nothing_of_their_own_beside_our_sentence(tmp_path, capfd, suffix):
    data = bytearray(cv2.imencode(suffix, image((40, 52, 3)))[1].tobytes())
    for damaged in (data[: len(data) // 2], data[:900] + bytes(40) + data[940:], data[:-3]):
        (tmp_path / f"a{suffix}").write_bytes(damaged)
        with contextlib.suppress(ImageError):
            read_image(tmp_path / f"a{suffix}")
    assert capfd.readouterr() == ("", "")
