"""MODEL.WEIGHTS "sact://NAME": published weights by name, as Detectron2 has "detectron2://"."""

from typing import IO, Any

from detectron2.utils.file_io import PathHandler, PathManager

from sact_det.weights.named import weights_named
from sact_det.weights.published import SCHEME


class PublishedWeights(PathHandler):
    """Takes "sact://NAME" to our weight file of that name in the cache folder (sact_det/weights/named.py)."""

    def _get_supported_prefixes(self) -> list[str]:
        return [SCHEME]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        return str(weights_named(path.removeprefix(SCHEME)))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        self._check_kwargs(kwargs)
        if mode not in ("r", "rb"):
            raise ValueError(f"{path}: can be read only, not opened with mode {mode!r}")
        return open(self._get_local_path(path), mode, buffering)


PathManager.register_handler(PublishedWeights(), allow_override=True)
