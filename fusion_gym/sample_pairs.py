"""The real pairs that come with the package, for a first look; nothing is trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "sample_images"


class Sample(NamedTuple):
    """Files of one scene.

    Attributes:
        ir: The infrared image.
        vi: The visible image, of the same name and size.
    """

    ir: Path
    vi: Path


def samples() -> list[Sample]:
    """Paths of three registered pairs of the TNO Image Fusion Dataset (see ATTRIBUTION.md beside them).

    Returns:
        The pairs by name; none where the folder has been taken out of the package.
    """
    return [Sample(ir, FOLDER / "vi" / ir.name) for ir in sorted((FOLDER / "ir").glob("*.png"))]
