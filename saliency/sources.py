"""The models that a command line names: networks, whose maps are extracted, and maps that exist already."""

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from sact_det.base.command_line import with_budget
from sact_det.base.errors import InputError
from saliency.dataset import FixationDataset
from saliency.map_sources import PaddingMasked, PonderFileMaps, stored_maps
from saliency.methods import GIVEN_MAP, LOG_DENSITY, Model
from saliency.postprocess import PostProcessing

logger = logging.getLogger(__name__)


def title_from_path(config_file: str) -> str:
    """The file's name, or its folder's where a training wrote it as config.yaml."""
    path = Path(config_file).resolve()
    return path.parent.name if path.name == "config.yaml" else path.stem


def load_networks(args: argparse.Namespace) -> dict[str, Any]:
    """The config of every network by its name, checked before any work is done."""
    if not (args.config_file or args.model):
        return {}
    from sact_det.tasks import load_config  # late: it needs Detectron2
    from saliency.extraction import check_halts_by_position, check_processes, fingerprint

    chosen: list[tuple[str, str, list[str]]] = []
    if args.config_file:
        chosen.append((title_from_path(args.config_file), args.config_file, []))
    chosen += [(name, config, ["MODEL.WEIGHTS", weights]) for name, config, weights in args.model]
    configs = {}
    for name, config, weights in chosen:
        if name in configs:
            raise InputError(f"--model {name!r}: given twice")
        configs[name] = load_config(config, [*with_budget(args), *weights], data=False)
        check_halts_by_position(configs[name])
        fingerprint(configs[name], 1)
        check_processes(configs[name], args.num_processes or args.num_gpus, args.num_processes is None)
    return configs


def make_models(args: argparse.Namespace, networks: dict[str, Any], dataset: FixationDataset) -> list[Model]:
    """Every source of maps; those of networks are extracted, those of padding lowered where that is asked for."""
    chain = PostProcessing(blur_at=args.blur_at, interpolation=args.interpolation)
    models = []
    for name, cfg in networks.items():
        from saliency.extraction import LONGER_EDGE, extract_maps

        edge = args.image_size or LONGER_EDGE[cfg.MODEL.META_ARCHITECTURE]
        logger.info("Ponder maps of %s: longer edge %d pixels", name, edge)
        folder = args.cache or Path(args.output or args.submission) / "maps"
        processes = args.num_processes or args.num_gpus
        maps = extract_maps(cfg, dataset, folder, edge, processes=processes, on_gpus=args.num_processes is None)
        models.append(Model(name, maps, PostProcessing(edge, blur_at=args.blur_at, interpolation=args.interpolation)))
    for kind, stored in ((GIVEN_MAP, args.maps), (LOG_DENSITY, args.densities)):
        models += [Model(name, stored_maps(path, dataset, kind == LOG_DENSITY), chain, kind) for name, path in stored]
    names = [image.name for image in dataset]
    models += [Model(name, PonderFileMaps(path, names), chain) for name, path in args.hdf5]
    if args.mask_padding:
        models = [
            model if model.kind == LOG_DENSITY else replace(model, maps=PaddingMasked(model.maps, dataset))
            for model in models
        ]
    return [replace(model, as_is=args.as_is) for model in models]
