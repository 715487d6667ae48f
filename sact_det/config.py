"""Every configuration key this project adds to Detectron2's, with its symbol in the paper."""

from yacs.config import CfgNode as CN


def add_sact_config(cfg: CN) -> None:
    """Adds the keys of SACT to a Detectron2 config, in place."""
    cfg.MODEL.SACT = type(cfg)()  # Detectron2 refuses to merge a plain yacs node
    # Halting rule of the extractor (blocks 1-3) and of the box head (block 4): "none" (plain ResNet), "act", "sact".
    cfg.MODEL.SACT.HALTING = "sact"
    # Parameter `tau`, the price of one unit of ponder cost; extractor only (eq. 13, section 4.2).
    cfg.MODEL.SACT.TAU = 0.005
    # Parameter `epsilon`: a position halts where its cumulative halting score reaches 1 - epsilon (eq. 7).
    cfg.MODEL.SACT.EPS = 0.01
    # Parameter `k`: halting scores are shared in k x k cells (section 2.3).
    cfg.MODEL.SACT.TILE = 1
    # How blocks compute; the results do not depend on it. "dense" is the only execution so far.
    cfg.MODEL.SACT.EXECUTION = "dense"

    # Parameter `L` of blocks 1-4: (3, 4, 6, 3) is ResNet-50, (3, 4, 23, 3) ResNet-101.
    cfg.MODEL.SACT.UNITS = (3, 4, 23, 3)
    # Bottleneck width of block 1; it doubles from block to block.
    cfg.MODEL.SACT.BASE_CHANNELS = 64
    # Norm of the residual units: "BN", "SyncBN", "MovingBN" or "FrozenBN".
    cfg.MODEL.SACT.NORM = "FrozenBN"
    # Norm of block 4 and postnorm, in the box head; "" stands for NORM. "BN" where the weights lack block 4.
    cfg.MODEL.SACT.BOX_HEAD_NORM = ""
    # Norm of the halting branches. A freshly initialised branch needs statistics, so never freeze it untrained; with
    # one or two images per process batch statistics of the global mean are void: "MovingBN" has neither problem.
    cfg.MODEL.SACT.HALTING_NORM = "MovingBN"
    # Decay of the moving statistics of norms that learn them; short trainings from scratch want a smaller one.
    cfg.MODEL.SACT.NORM_DECAY = 0.997
    # Per block: dilation of conv2 in the first unit. TF-Slim weights need 2s (tools/convert_weights.py says which).
    cfg.MODEL.SACT.DILATION = (1, 1, 1, 1)

    # FLOPs are reported in percent of the plain extractor with these blocks 1-3 (and BASE_CHANNELS): ResNet-101's.
    cfg.MODEL.SACT.REFERENCE_UNITS = (3, 4, 23)

    # COCO-format data sets to register: (name, annotation json, image folder) each. Classes come from the json.
    cfg.DATASETS.COCO_FORMAT = []
