"""The core works where Detectron2 is not installed, and the rest says how to get it."""

import subprocess
import sys

CORE = (
    "sact_det",
    "sact_det.pictures.canvas",
    "sact_det.classification.model",
    "sact_det.classification.preprocessing",
    "sact_det.data.cifar_python",
    "sact_det.data.class_folders",
    "sact_det.data.demo",
    "sact_det.data.imagenet_tars",
    "sact_det.data.jpeg_npz",
    "sact_det.pictures.image_sets",
    "sact_det.pictures.ponder_file",
    "sact_det.pictures.panels",
    "sact_det.weights.sact_tf",
    "sact_det.weights.tf_slim",
    "sact_det.weights.tf_slim_checkpoint",
    "sact_det.weights.timm",
    "saliency.search",
)


def run_without_detectron2(code):
    blocked = f"import sys; sys.modules['detectron2'] = None; {code}"
    return subprocess.run([sys.executable, "-c", blocked], capture_output=True, text=True, check=False)


def test_the_core_imports_and_runs_without_detectron2():
    model = "sact_det.build_classifier((1, 1, 1, 1), base_channels=4)"
    run = f"import torch; print({model}(torch.zeros(2, 3, 32, 32)).logits.shape)"
    result = run_without_detectron2(f"import {', '.join(CORE)}; {run}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "torch.Size([2, 1001])" and result.stderr == ""


def test_the_detection_parts_say_in_one_line_how_to_get_detectron2():
    result = run_without_detectron2("import sact_det.detection")
    last = result.stderr.strip().splitlines()[-1]
    assert result.returncode != 0
    assert last.startswith("ImportError: this part of sact_det needs Detectron2") and "pip install" in last


def test_saliency_needs_neither_detectron2_nor_torch():
    result = run_without_detectron2("sys.modules['torch'] = None; import saliency.cat2000, saliency.search")
    assert result.returncode == 0, result.stderr
