import struct

import cv2
import numpy as np
import pytest

from fusion_gym.files import FileError
from fusion_gym.images import MAX_PIXELS, ImageError, luminance, read_gray, read_image, restore_colour, write_image


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
