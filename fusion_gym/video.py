"""Pairs of video files: read frame by frame in step, written whole or not at all, with bounded memory."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from fusion_gym.files import FileError, atomic_path
from fusion_gym.headers import other_format, pointer_at, read_header
from fusion_gym.images import MAX_PIXELS
from fusion_gym.opencv import cv2

SUFFIXES = {
    ".mp4": "mp4v",
    ".m4v": "mp4v",
    ".mov": "mp4v",
    ".avi": "MJPG",
    ".mkv": "FFV1",
}  # with codecs; FFV1: lossless
_RATE_TOLERANCE = 0.01  # of the frame rate
_BLOCK = 4096  # bytes that disks are given out in

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # no lines of FFmpeg's beside our sentence
if "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # nor of OpenCV's

Item = TypeVar("Item")


class VideoError(ValueError):
    """Videos that cannot be read together or written; the message is one sentence."""


def ahead(items: Iterable[Item], count: int = 4) -> Iterator[Item]:
    """The same items, of which up to ``count`` are made ahead of need by a thread."""
    made: queue.Queue[tuple[bool, Item | BaseException | None]] = queue.Queue(count)
    stopped = threading.Event()

    def put(entry: tuple[bool, Item | BaseException | None]) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                made.put(entry, timeout=0.1)
                return

    def work() -> None:
        try:
            for item in items:
                put((True, item))
                if stopped.is_set():
                    return
            put((False, None))
        except BaseException as error:
            put((False, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            good, item = made.get()
            if good:
                yield item  # type: ignore[misc]
            elif item is None:
                return
            else:
                raise item  # type: ignore[misc]
    finally:
        stopped.set()
        thread.join()


def _opened(path: Path) -> cv2.VideoCapture:
    """A video, of which no more than its header has been believed; FFmpeg would decode images as well."""
    if not path.is_file():
        raise VideoError(f"The video {path} does not exist.")
    pointer = pointer_at(path)
    if pointer:
        raise VideoError(pointer)
    with open(path, "rb") as file:
        start = file.read(4096)
    if read_header(start) is not None or other_format(start) is not None:
        raise VideoError(f"{path} is an image, whatever its name says; give it its own suffix, or a video.")
    capture = cv2.VideoCapture(str(path))
    if not capture.isOpened():
        raise VideoError(f"{path} is not a video that OpenCV can read; convert it to MP4.")
    width, height = (int(capture.get(name)) for name in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    if width * height > MAX_PIXELS:
        raise VideoError(f"{path} claims frames of {width}x{height} pixels; at most {MAX_PIXELS:,} are read.")
    return capture


class VideoPair:
    """Two videos of one scene, frame by frame.

    Args:
        ir: Infrared video file.
        vi: Visible video file.

    Attributes:
        rate: Frames per second, of the visible video.
        count: Number of pairs that the files promise; 0 where they do not say.
        leftover: Which video went on when the other had ended, once they have been read; else empty.
        astray: Seconds that a frame read so far lay at most from its place at the constant rate, by video; frames have
            times of their own where a camera slows down in the dark.

    Raises:
        VideoError: If one cannot be read, or their frame rates differ.
    """

    def __init__(self, ir: Path, vi: Path) -> None:
        self.paths = {"infrared": ir, "visible": vi}
        self._captures = {name: _opened(path) for name, path in self.paths.items()}
        rates = [capture.get(cv2.CAP_PROP_FPS) for capture in self._captures.values()]
        if min(rates) > 0 and abs(rates[0] - rates[1]) > _RATE_TOLERANCE * max(rates):
            raise VideoError(f"{ir} has {rates[0]:g}, {vi} {rates[1]:g} frames per second; convert one to the other's.")
        self.rate = rates[1] or rates[0] or 25.0
        self.count = max(0, int(min(capture.get(cv2.CAP_PROP_FRAME_COUNT) for capture in self._captures.values())))
        self.leftover = ""
        self.astray = dict.fromkeys(self.paths, 0.0)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Pairs of frames, infrared and visible, uint8 BGR (H, W, 3) each, until one video ends."""
        first: dict[str, float] = {}
        for number in itertools.count():
            frames = {name: capture.read() for name, capture in self._captures.items()}
            if not all(good for good, _ in frames.values()):
                self.leftover = next((name for name, (good, _) in frames.items() if good), "")
                return
            for name, capture in self._captures.items():
                at = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                off = abs(at - first.setdefault(name, at) - number / self.rate)
                if at > 0:  # 0 throughout where a format keeps no times
                    self.astray[name] = max(self.astray[name], off)
            yield frames["infrared"][1], frames["visible"][1]

    @property
    def uneven(self) -> dict[str, float]:
        """The entries of `astray` that are more than a frame and a half."""
        return {name: off for name, off in self.astray.items() if off > 1.5 / self.rate}

    def close(self) -> None:
        """Closes the files."""
        for capture in self._captures.values():
            capture.release()


def write_video(path: Path, frames: Iterable[np.ndarray], rate: float, sound: Path | None = None) -> tuple[int, str]:
    """Writes frames as a video file, whole or not at all.

    Args:
        path: The file; its suffix chooses the format.
        frames: uint8, (H, W) or BGR (H, W, 3), all of one shape.
        rate: Frames per second.
        sound: A file whose sound is copied, where FFmpeg is installed.

    Returns:
        The number of frames, and what became of the sound, in words.

    Raises:
        VideoError: If there is no frame, or OpenCV cannot write this format or size.
        fusion_gym.files.FileError: If the file cannot be written.
    """
    codec = SUFFIXES.get(path.suffix.lower())
    if codec is None:
        raise VideoError(f"{path} has no known video suffix; use one of {', '.join(SUFFIXES)}.")
    with atomic_path(path) as temporary:
        writer, count = None, 0
        try:
            for frame in frames:
                if writer is None:
                    size = frame.shape[1], frame.shape[0]
                    writer = cv2.VideoWriter(
                        str(temporary), cv2.VideoWriter.fourcc(*codec), rate, size, frame.ndim == 3
                    )
                    if not writer.isOpened():
                        temporary.write_bytes(bytes(2**16))  # where the disk is full, this says so
                        raise VideoError(f"OpenCV cannot write {path} ({size[0]}x{size[1]}, {codec}); try .avi.")
                writer.write(frame)
                count += 1
        finally:
            if writer is not None:
                writer.release()
        if not count:
            raise VideoError("The videos hold no frames that can be read together.")
        verify(temporary, path, count)
        return count, _copy_sound(temporary, sound)


def verify(temporary: Path, path: Path, count: int) -> None:
    """Checks that a film is whole: the libraries that write films are silent about a full disk.

    Args:
        temporary: The file as written.
        path: What it is to be called.
        count: Number of frames that it should hold.

    Raises:
        fusion_gym.files.FileError: If it holds fewer, or the last of them cannot be read.
        OSError: If there is no room left, so that the last one may not be whole.
    """
    written = cv2.VideoCapture(str(temporary))
    found = max(0, int(written.get(cv2.CAP_PROP_FRAME_COUNT))) if written.isOpened() else 0
    written.set(cv2.CAP_PROP_POS_FRAMES, count - 1)
    readable = written.read()[0]
    written.release()
    if found != count or not readable:
        held = f"{found} of {count} frames" if found < count else "its end cannot be read"
        raise FileError(f"{path} could be written in part only ({held}); check the free space.")
    with open(temporary, "ab") as file:  # half an image can be read too: is there room for one more block?
        size = file.tell()
        file.write(bytes(_BLOCK))
        os.fsync(file.fileno())
        file.truncate(size)


def _copy_sound(video: Path, source: Path | None) -> str:
    """Adds the sound of ``source`` to a finished video, in place."""
    if source is None:
        return ""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        return "without sound: FFmpeg is not installed"
    joined = video.with_name(f"{video.stem}-sound{video.suffix}")
    command = [ffmpeg, "-nostdin", "-loglevel", "error", "-y", "-i", str(video), "-i", str(source)]
    command += ["-map", "0:v", "-map", "1:a?", "-c", "copy", "-shortest", str(joined)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return "without sound: FFmpeg could not copy it"
        joined.replace(video)
        return "with the visible video's sound, if it has any"
    finally:
        joined.unlink(missing_ok=True)
