import numpy as np
import pytest

import fusion_gym
from fusion_gym import fuse, sample_pairs
from fusion_gym.images import read_image


def test_samples_are_three_real_pairs_of_equal_size_whose_origin_and_licence_stand_beside_them():
    pairs = fusion_gym.samples()
    assert [pair.ir.name for pair in pairs] == ["tno_17.png", "tno_24.png", "tno_37.png"]
    for ir, vi in pairs:
        assert read_image(ir).shape == read_image(vi).shape and ir.name == vi.name
    said = (sample_pairs.FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "Toet" in said and "1008029" in said and "CC BY 4.0" in said
    assert sum(file.stat().st_size for file in sample_pairs.FOLDER.rglob("*.png")) < 700_000


def test_samples_are_fused_by_one_option(tmp_path, capsys):
    assert fuse.main(["--samples", "--out", str(tmp_path / "fused"), "--student", "rule:max", "--no-progress"]) == 0
    for ir, vi in fusion_gym.samples():
        fused = read_image(tmp_path / "fused" / ir.name)
        np.testing.assert_array_equal(fused, np.maximum(read_image(ir), read_image(vi)))
    assert capsys.readouterr().out.startswith("3 fused images are in")


@pytest.mark.parametrize("more", [["--ir", "a.png"], ["--vi", "b.png"]])
def test_samples_and_files_of_ones_own_do_not_go_together(more, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        fuse.main(["--samples", *more, "--out", str(tmp_path / "x")])
    assert "leave them out" in capsys.readouterr().err


def test_package_without_its_samples_works_and_says_what_is_missing(tmp_path, monkeypatch, capsys):
    for module in (sample_pairs, fuse):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "gone")
    assert fusion_gym.samples() == []
    with pytest.raises(SystemExit, match="2"):
        fuse.main(["--samples", "--out", str(tmp_path / "x")])
    assert "taken out of" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        fuse.main(["--out", str(tmp_path / "x")])
    assert "give both --ir and --vi, or --samples" in capsys.readouterr().err
