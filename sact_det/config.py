"""Every configuration key this project adds to Detectron2's, with its symbol in the paper."""

from yacs.config import CfgNode as CN


def add_sact_config(cfg: CN) -> None:
    """Adds the keys of SACT to a Detectron2 config, in place."""
    node = type(cfg)  # Detectron2 refuses to merge a plain yacs node
    cfg.MODEL.SACT = node()
    # Halting rule of all blocks, block 4 in a detector's box head included: "none" (plain ResNet), "act", "sact".
    cfg.MODEL.SACT.HALTING = "sact"
    # That of block 4 in a detector's box head, where it is another one; "" stands for HALTING. There "act" is one
    # decision per region, "sact" one per position of a region.
    cfg.MODEL.SACT.BOX_HEAD_HALTING = ""
    # Parameter `tau`, the price of one unit of ponder cost (eq. 13): in a classifier of all blocks, in a detector of
    # the extractor only (section 4.2).
    cfg.MODEL.SACT.TAU = 0.005
    # The same for block 4 in a detector's box head, over its regions. 0, the paper's: it is never charged.
    cfg.MODEL.SACT.TAU_BOX_HEAD = 0.0
    # In evaluation an image keeps its proposals in order of score up to this share, in (0, 1], of their summed
    # objectness; at least 10, MODEL.RPN.POST_NMS_TOPK_TEST at most. 1: all. The proposal generator "SACTRPN" obeys it.
    cfg.MODEL.SACT.PROPOSAL_MASS = 1.0
    # Where the RPN has anchors in evaluation: at "all" positions of its feature, or at the "active" ones, which did not
    # halt behind the first unit of the block that it comes from. The head "SACTRPNHead" obeys it; in training anchors
    # are everywhere.
    cfg.MODEL.SACT.RPN_POSITIONS = "all"
    # A detector's box head may reject regions before they are pooled (h^0): they evaluate no unit and are background
    # (sact_det/detection/rejection.py). The price is TAU_BOX_HEAD.
    cfg.MODEL.SACT.REJECTION = False
    # Parameter `epsilon`: a position halts where its cumulative halting score reaches 1 - epsilon (eq. 7).
    cfg.MODEL.SACT.EPS = 0.01
    # Parameter `k`: halting scores are shared in k x k cells (section 2.3), wherever positions halt one by one.
    cfg.MODEL.SACT.TILE = 1
    # In evaluation, the share of the plain network's FLOPs to be spent, in (0, 1], by the budget.json beside the
    # weights (tools/calibrate_budget.py). 0: as trained.
    cfg.MODEL.SACT.BUDGET = 0.0
    # Lowest and highest of what each training step draws for all blocks, so that one network is good at every budget;
    # (): nothing is drawn. Evaluations have the shifts of BUDGET.
    cfg.MODEL.SACT.BUDGET_TRAINING = ()
    # What is drawn: "shift", a number in every halting logit, evenly; "budget", the share of FLOPs that an extractor or
    # classifier takes, evenly, by a shift that follows what images have spent; or "tau", the price, log-uniformly.
    # Halting branches then read its logarithm: they have a parameter more, so that evaluations need the same keys, and
    # without a budget are at TAU. TAU_BOX_HEAD is scaled alike.
    cfg.MODEL.SACT.BUDGET_TRAINING_DRAWS = "shift"
    # One for all images of a "batch", or one for every "image".
    cfg.MODEL.SACT.BUDGET_TRAINING_PER = "batch"
    # Whether halting stays as it was learned: branches (REJECTION's, too) keep their weights, nothing is charged, and
    # no gradient passes through halting scores. Units cannot escape what is drawn but must be good there. What norms
    # of branches do is HALTING_NORM's: "FrozenBN" stays, "MovingBN" follows features that drift.
    cfg.MODEL.SACT.FREEZE_HALTING = False
    # Whether all else stays: a trained network learns where positions can halt, and where none does it is what it was.
    cfg.MODEL.SACT.FREEZE_NETWORK = False
    # In evaluation no image takes more than this share, in (0, 1], of the FLOPs of the plain network of as many units
    # (of a detector: its extractor); positions halt where they are spent. 0: there is no limit.
    cfg.MODEL.SACT.FLOPS_LIMIT = 0.0
    # How blocks compute; results agree to rounding: "dense" (the reference), "perforated" (active positions only; where
    # norms learn from the batch it falls back to dense), "auto" (perforated where that is faster: on CPUs wherever
    # kernels can run, on GPUs where `make gpu` has measured it), "graphs" (perforated, and inference on an NVIDIA GPU
    # launches a block as one CUDA graph) or "compile" (dense, a block through torch.compile).
    cfg.MODEL.SACT.EXECUTION = "auto"

    # What the network is (UNITS, BASE_CHANNELS, DILATION, STEM_POOL, HALTING; a classifier's FAMILY, NUM_CLASSES) and
    # how pixels are normalised comes from MODEL.WEIGHTS, which describe it, where no config file and no command line
    # says otherwise; what they say against the weights is refused.
    cfg.MODEL.SACT.FROM_WEIGHTS = False

    # Parameter `L` of every block: (3, 4, 6, 3) is ResNet-50, (3, 4, 23, 3) ResNet-101; (5, 5, 5) is CIFAR's ResNet-32.
    cfg.MODEL.SACT.UNITS = (3, 4, 23, 3)
    # Width of block 1 (in the bottleneck, except in the CIFAR family); it doubles from block to block.
    cfg.MODEL.SACT.BASE_CHANNELS = 64
    # Norm of the residual units: "BN", "SyncBN", "MovingBN" or "FrozenBN".
    cfg.MODEL.SACT.NORM = "FrozenBN"
    # Norm of the last block and of postnorm (a detector's box head); "" stands for NORM. "BN" where the weights lack
    # that block.
    cfg.MODEL.SACT.BOX_HEAD_NORM = ""
    # Norm of the halting branches. A freshly initialised branch needs statistics, so never freeze it untrained; with
    # one or two images per process batch statistics of the global mean are void: "MovingBN" has neither problem.
    cfg.MODEL.SACT.HALTING_NORM = "MovingBN"
    # The same for block 4 in a detector's box head; "" stands for HALTING_NORM. A step sees many regions, so that "BN"
    # has its statistics there, and follows features that change fast.
    cfg.MODEL.SACT.BOX_HEAD_HALTING_NORM = ""
    # A detector's box head halves its regions by 2x2 max pooling before block 4, whose first unit then has stride 1, as
    # the TensorFlow detection zoo's do; else that unit has stride 2. It is another function of the same weights.
    cfg.MODEL.SACT.BOX_HEAD_MAX_POOL = False
    # The 1x1 products of block 4's first unit in a detector's box head (conv1 and the projecting shortcut) are computed
    # once on the map and then pooled, instead of once for every region: its first norm and ReLU stand before pooling.
    # It is another function of the same weights.
    cfg.MODEL.SACT.BOX_HEAD_MAP_PRODUCTS = False
    # Decay of the moving statistics of norms that learn them; short trainings from scratch want a smaller one.
    cfg.MODEL.SACT.NORM_DECAY = 0.997
    # Per block: dilation of conv2 in the first unit. TF-Slim weights need 2s (tools/convert_weights.py says which).
    cfg.MODEL.SACT.DILATION = (1, 1, 1, 1)
    # Padding of the stem's pooling: "same" (TensorFlow's) or "symmetric" (PyTorch's). timm weights need "symmetric".
    cfg.MODEL.SACT.STEM_POOL = "same"

    # The halting branches learn at so many times the learning rate of everything else.
    cfg.SOLVER.HALTING_LR_FACTOR = 1.0
    # The extractor of a detector, but for its halting branches, learns at so many times the learning rate of the rest.
    cfg.SOLVER.BACKBONE_LR_FACTOR = 1.0

    # Decay of the moving averages of all weights that learn, which are evaluated and saved instead of these; in (0, 1).
    # 0: there are none.
    cfg.SOLVER.EMA_DECAY = 0.0

    # The images of a step (IMS_PER_BATCH) go through the network in so many parts, whose gradients are added up, where
    # memory does not take them at once. Nothing else changes: schedules count steps.
    cfg.SOLVER.ACCUMULATION_STEPS = 1

    # How many of the checkpoints of every CHECKPOINT_PERIOD steps a training keeps, the last ones; the final one and
    # the best one always stay. 0: all.
    cfg.SOLVER.CHECKPOINTS_KEPT = 0

    # Whether kernels for training on an NVIDIA GPU keep the states between units in mixed precision's 16 bits, too, as
    # dense execution does, instead of float32: half of the memory and of what units read and write.
    cfg.SOLVER.AMP.HALF_STATES = False

    # How often every image is seen: MAX_ITER follows it and the number of images; STEPS, WARMUP_ITERS and all periods
    # stay in proportion to that (sact_det/engine/schedule.py). 0: lengths are those that are given.
    cfg.SOLVER.EPOCHS = 0.0

    # The losses of training on the images of DATASETS.TEST are logged every so many steps. 0: never.
    cfg.TEST.LOSS_PERIOD = 0
    # The checkpoint with the best value of this number of an evaluation ("bbox/AP"; with several data sets
    # "NAME/bbox/AP") or this validation loss ("validation/total_loss") is kept as model_best.pth. "": none is.
    cfg.TEST.BEST_METRIC = ""
    # Whether the "max" or the "min" of it is the best.
    cfg.TEST.BEST_METRIC_MODE = "max"
    # The training ends when BEST_METRIC has not been better for so many of its periods. 0: it does not.
    cfg.TEST.PATIENCE = 0

    # The project on Weights & Biases that a training's course goes to, beside TensorBoard, by the package wandb; "" for
    # none.
    cfg.WANDB = node()
    cfg.WANDB.PROJECT = ""

    # FLOPs are reported in percent of a plain network (BASE_CHANNELS wide) with these units: of the whole network for a
    # classifier, of the extractor for a detector: blocks 1-3 under C4 (the default is those of ResNet-101), as many as
    # MODEL.FPN.IN_FEATURES reads under a pyramid.
    cfg.MODEL.SACT.REFERENCE_UNITS = (3, 4, 23)

    cfg.MODEL.CLASSIFIER = node()
    # "imagenet" (sact_det/network/resnet_v2.py) or "cifar" (sact_det/network/resnet_cifar.py).
    cfg.MODEL.CLASSIFIER.FAMILY = "imagenet"
    # As many as the data set has classes, or one more: class 0 is then background, as in the original's ImageNet
    # models.
    cfg.MODEL.CLASSIFIER.NUM_CLASSES = 1001
    # This share of every target is spread evenly over the classes.
    cfg.MODEL.CLASSIFIER.LABEL_SMOOTHING = 0.0

    # Large-scale jitter of a detector's training images: lowest and highest scale, (0.1, 2.0) in arXiv 2012.07177, of
    # a square of SCALE_JITTER_SIZE pixels that an image just fits into, and of which a part is cut out at most. It
    # stands in the place of MIN_SIZE_TRAIN and MAX_SIZE_TRAIN. (): there is none.
    cfg.INPUT.SCALE_JITTER = ()
    cfg.INPUT.SCALE_JITTER_SIZE = 1024

    cfg.INPUT.CLASSIFICATION = node()
    # Side of the square that the network sees, in pixels. SIZE_TEST may be another: the network is fully convolutional.
    cfg.INPUT.CLASSIFICATION.SIZE_TRAIN = 224
    cfg.INPUT.CLASSIFICATION.SIZE_TEST = 224
    # Evaluation keeps this share of each side, in the middle, and resizes that to SIZE_TEST.
    cfg.INPUT.CLASSIFICATION.CROP_FRACTION = 0.875
    # Of training images: "inception" (random area, flip, colours), "cifar" (shift by up to 4 pixels, flip), or "none":
    # the evaluation's crop at SIZE_TRAIN.
    cfg.INPUT.CLASSIFICATION.AUGMENTATION = "inception"
    # Images per step of an evaluation; the results do not depend on it.
    cfg.INPUT.CLASSIFICATION.BATCH_SIZE_TEST = 50

    # COCO-format data sets to register: (name, annotation json, image folder) each. Classes come from the json.
    cfg.DATASETS.COCO_FORMAT = []
    # Folders of Pascal VOC (JPEGImages/, Annotations/, ImageSets/Main/): (name, folder, split) each.
    cfg.DATASETS.VOC_FORMAT = []
    # Folders of YOLO (images/SPLIT/, labels/SPLIT/, data.yaml with the names): (name, folder, split) each.
    cfg.DATASETS.YOLO_FORMAT = []
    # Those of COCO's panoptic format: (name, panoptic json, folder of its PNGs, image folder) each.
    cfg.DATASETS.PANOPTIC_FORMAT = []
    # Labelled images to register: (name, path) each, or (name, path, split) with split "train" or "val" where the path
    # holds both. What the path may be is said in sact_det/data/image_sources.py.
    cfg.DATASETS.CLASSIFICATION = []
