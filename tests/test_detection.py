"""The benchmark by detection, on boxes whose figures can be told by hand."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
bench = pytest.importorskip("bench_detection", reason="benchmarks/ is absent")

FAR = np.array([[0.0, 0.0, 0.1, 0.1]])
BOX = np.array([[0.4, 0.4, 0.6, 0.6]])


def hits(found, truths):
    return bench.matched([(np.array(b).reshape(-1, 4), np.array(c, float)) for b, c in found], truths)


def test_average_precision_and_recall_by_hand():
    """Sure hit, miss, unsure hit of two objects: precision 1 up to half of them, then 2/3 of the envelope."""
    found = [(np.concatenate((BOX, FAR)), [0.9, 0.8]), (BOX, [0.7])]
    area, recall = hits(found, [BOX, BOX]).figures(np.ones(2))
    assert area == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert recall == 1.0  # one false positive on two images
    assert hits(found, [BOX, BOX]).figures(np.array([1.0, 0.0])) == (1.0, 1.0)
    assert hits([(FAR, [0.9]), (BOX, [0.8])], [BOX, BOX]).figures(np.array([1.0, 0.0])) == (0.0, 0.0)


def test_an_object_is_hit_once_and_no_objects_have_no_figures():
    twice = hits([(np.concatenate((BOX, BOX)), [0.9, 0.8])], [BOX])
    assert twice.hit.tolist() == [True, False]
    assert np.isnan(hits([(BOX, [0.9])], [np.zeros((0, 4))]).figures(np.ones(1))).all()
    assert hits([(np.zeros((0, 4)), [])], [BOX]).figures(np.ones(1)) == (0.0, 0.0)


def test_fastestdet_s_cells_are_read():
    output = np.zeros((1, 85, 22, 22), np.float32)
    output[0, 0, 11, 5], output[0, 5 + 2, 11, 5] = 0.81, 0.64
    output[0, 1:5, 11, 5] = np.arctanh(0.5), 0.0, 0.0, np.log(0.25 / 0.75)
    boxes, confidence = bench.decode(output, (352, 352))
    index = 11 * 22 + 5
    assert boxes[index] == pytest.approx([5.5 / 22 - 0.25, 0.5 - 0.125, 5.5 / 22 + 0.25, 0.5 + 0.125], abs=1e-6)
    assert confidence[index, 2] == pytest.approx(0.81**0.6 * 0.64**0.4) and np.count_nonzero(confidence) == 1


@pytest.mark.parametrize("width", [84, 85])
def test_both_layouts_of_yolo_are_read(width):
    row = np.zeros(width, np.float32)
    row[:4], row[-80 + 7] = (320, 240, 64, 48), 0.5
    if width == 85:
        row[4] = 0.8
    output = np.stack((row, np.zeros_like(row), np.zeros_like(row)))
    boxes, confidence = bench.decode((output.T if width == 84 else output)[None], (480, 640))
    assert boxes[0] == pytest.approx([0.45, 0.45, 0.55, 0.55])
    assert confidence[0, 7] == pytest.approx(0.5 if width == 84 else 0.4)
    with pytest.raises(bench.UserError, match=r"\(1, 5, 6\)"):
        bench.decode(np.zeros((1, 5, 6)), (480, 640))


def test_labels_of_both_sources_count_once(tmp_path):
    for source, text in (("infrared", "0 0.5 0.5 0.2 0.2\n2 0.5 0.5 0.2 0.2"), ("visible", "0 0.51 0.5 0.2 0.2")):
        (tmp_path / source).mkdir()
        (tmp_path / source / "1.txt").write_text(text)
    assert bench.truth(tmp_path, "1")[:, 0].tolist() == [0, 2] and len(bench.truth(tmp_path, "2")) == 0
    (tmp_path / "visible" / "3.txt").write_text("0 0.5 0.5")
    with pytest.raises(bench.UserError, match="not a list of boxes"):
        bench.truth(tmp_path, "3")


def test_sequences_are_runs_of_numbers_of_one_kind():
    groups = bench.sequences(["00010D", "00100N", "00020D", "00110N", "00200D"], 30)
    assert groups[0] == groups[2] != groups[4] and groups[1] == groups[3] != groups[0]


def test_a_detector_that_finds_everything_scores_one_whatever_it_is_shown(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    rows = np.zeros((1, 2, 85), np.float32)
    rows[0, :, :5], rows[0, 0, 5], rows[0, 1, 7] = [[32, 32, 16, 16, 1], [16, 48, 8, 8, 1]], 1, 0.9
    constant = onnx.helper.make_node("Constant", [], ["out"], value=onnx.numpy_helper.from_array(rows))
    images, out = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("images", [1, 3, 64, 64]), ("out", rows.shape))
    )
    graph = onnx.helper.make_graph([constant], "constant", [images], [out])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "all.onnx"))
    rng = np.random.default_rng(0)
    for folder in ("test/ir", "test/vi", "labels/infrared", "labels/visible", "mine"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("001D", "002N"):
        for folder in ("test/ir", "test/vi", "mine"):
            cv2.imwrite(str(tmp_path / folder / f"{name}.png"), rng.integers(0, 256, (64, 64), np.uint8))
        (tmp_path / "labels" / "visible" / f"{name}.txt").write_text("0 0.5 0.5 0.25 0.25\n2 0.25 0.75 0.125 0.125")
    arguments = ["--pairs", tmp_path, "--labels", tmp_path / "labels", "--detector", tmp_path / "all.onnx"]
    arguments += ["--bootstraps", "5", "--json", tmp_path / "out.json", f"mine=folder:{tmp_path / 'mine'}"]
    bench.run(bench.parse([str(each) for each in arguments]))
    printed = " ".join(capsys.readouterr().out.split())  # titles wrap
    assert "all 2 pairs" in printed and "1 pairs by night" in printed and "mine" in printed
    for rows in (rows for name, rows in json.loads((tmp_path / "out.json").read_text()).items() if name != "machine"):
        assert rows.keys() == {"infrared", "visible", "mean", "max", "laplacian", "guided", "mine"}
        for row in rows.values():
            assert row["AP50"] == row["recall"] == row["AP50 person"] == row["AP50 car"] == "1.000"
