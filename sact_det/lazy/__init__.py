"""Models as Detectron2's python configs (LazyConfig)."""
