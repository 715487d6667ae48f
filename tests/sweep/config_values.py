"""Values of a config that cannot be used."""

from sweep.harness import CLASSIFIER, DETECTOR, DRAW_DETECTIONS, Case, good

CASES = [
    Case("train_net", r"MODEL\.SACT\.HALTING must be one of 'none', 'act'", *DETECTOR, "MODEL.SACT.HALTING", "x"),
    Case("train_net", r"MODEL\.CLASSIFIER\.NUM_CLASSES must be", *CLASSIFIER, "MODEL.CLASSIFIER.NUM_CLASSES", "0"),
    Case("train_net", r"nowhere: no such data set", *DETECTOR, "DATASETS.TRAIN", "('nowhere',)"),
    Case("visualize", r"give --config-file and --input", *DRAW_DETECTIONS),
    Case("visualize", r"unrecognized|nowhere\.jpg", *DRAW_DETECTIONS, "--input", "nowhere.jpg", good("photograph")),
]
