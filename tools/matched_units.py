#!/usr/bin/env python
r"""The matched-units baseline: how deep is an adaptive network on average, and
a plain network of that depth to train.

    python tools/matched_units.py \
        --config-file configs/ImageNet/sact_R_101_tau_0.005.yaml \
        --output output/matched MODEL.WEIGHTS output/sact/model_final.pth \
        DATASETS.TEST "('imagenet_val',)"

measures the mean units per block on DATASETS.TEST, rounds them, and writes to
OUTPUT the plain network's weights (the first units of each block, of the
adaptive network or of another one), its config.yaml, and the measurement
(inference/, units.json). To train it:

    python tools/train_net.py --config-file output/matched/config.yaml
"""

import argparse
import logging
from pathlib import Path
from typing import Optional, Sequence

import sact_det.engine  # noqa: F401  (first, because it imports Detectron2 quietly)

# isort: split
from detectron2.config import CfgNode

from sact_det.base.command_line import parse_with_overrides
from sact_det.base.errors import InputError, naming
from sact_det.base.files import write_json, write_text
from sact_det.base.processes import command_line
from sact_det.engine.console import setup_log
from sact_det.network.halting_rule import halting_rule
from sact_det.tasks import load_config, task_of
from sact_det.weights.matched_units import first_units, matched_units
from sact_det.weights.weight_file import load_weights, save_weights

logger = logging.getLogger("sact_det.matched_units")


def parse_arguments(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, metavar="FILE", help="of the trained ACT or SACT network")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the plain network; must not hold one")
    parser.add_argument(
        "--initialize-from",
        metavar="FILE",
        help="weights of the full plain network whose first units the shorter one starts with (default: MODEL.WEIGHTS, "
        "the adaptive network's)",
    )
    return parse_with_overrides(parser, argv)


def measure(cfg: CfgNode) -> dict[str, float]:
    """Mean units of every block that the evaluator reports, over the images of the data set: {"block1": 2.9, ...}."""
    trainer = task_of(cfg).trainer
    model = trainer.build_model(cfg)
    trainer.checkpointer_class(model, evaluate=True).load(cfg.MODEL.WEIGHTS)
    results = trainer.test(cfg, model)
    numbers = results.get("ponder") or results["classification"]
    return {key.removesuffix("_units"): value for key, value in numbers.items() if key.endswith("_units")}


def write_plain_network(cfg: CfgNode, mean_units: dict[str, float], full: str, output: Path) -> tuple[int, ...]:
    """Writes weights (the first units of the file `full`), config and measurement; returns the units per block."""
    # A detector's block 4 works on regions, not images: it is not measured, and stays.
    units = matched_units(list(mean_units.values())) + tuple(cfg.MODEL.SACT.UNITS[len(mean_units) :])
    state_dict, metadata = load_weights(full)
    weights = output / "weights.pth"
    described = {**metadata, "units": units, "halting": "none", "source": f"the first units of {full}"}
    with naming(full, ValueError):
        kept = first_units(state_dict, units)
    save_weights(weights, kept, described)
    plain = cfg.clone()
    plain.defrost()
    plain.MODEL.WEIGHTS = str(weights)
    plain.MODEL.SACT.HALTING, plain.MODEL.SACT.BOX_HEAD_HALTING, plain.MODEL.SACT.TILE = "none", "", 1
    plain.MODEL.SACT.UNITS, plain.MODEL.SACT.REJECTION = units, False
    write_text(output / "config.yaml", plain.dump())
    write_json(output / "units.json", {"datasets": cfg.DATASETS.TEST, "mean_units": mean_units, "matched_units": units})
    return units


@command_line()
def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_arguments(argv)
    output = Path(args.output)
    cfg = load_config(args.config_file, [*args.opts, "OUTPUT_DIR", str(output)])
    if not halting_rule(cfg.MODEL.SACT.HALTING).adaptive:
        raise InputError("MODEL.SACT.HALTING is 'none': a plain network already has whole units")
    if len(cfg.DATASETS.TEST) != 1:
        raise InputError(f"DATASETS.TEST must name the one data set to measure on; got {cfg.DATASETS.TEST}")
    if (output / "config.yaml").exists():
        raise InputError(f"--output {output}: already holds a config.yaml; choose another folder")
    full = args.initialize_from or cfg.MODEL.WEIGHTS
    load_weights(full)  # what cannot be read is said before the measurement
    mean_units = measure(cfg)
    units = write_plain_network(cfg, mean_units, full, output)
    logger.info("Mean units: %s", ", ".join(f"{name} {mean:.2f}" for name, mean in mean_units.items()))
    logger.info("The plain network with units %s is in %s", units, output)


if __name__ == "__main__":
    logging.captureWarnings(True)
    setup_log()
    main()
