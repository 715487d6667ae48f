"""docs/MODEL_ZOO.md: every config, what it starts from, and what is known of it, of one data file.

The data file (docs/model_zoo.json) is a list of sections:
    title, text: of the section;
    configs: patterns below configs/, in the order of the rows;
    results: jsons of tools/collect_results.py below docs/results; a config's numbers are those of the runs in its
        OUTPUT_DIR, from the first json that has any;
    page: below docs/results, that says how they were made;
    starts: pattern -> weights that a config which leaves MODEL.WEIGHTS open starts from;
    weights: config -> name of trained weights that MODEL.WEIGHTS takes;
    published, measured: config -> {column: number} that no json has: what others have published, what a page says;
    seconds: config -> {"s": number, "page": where it stands}.
What nobody has measured stays empty.
"""

from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Optional, Sequence

from tqdm import tqdm

from sact_det.base.errors import InputError
from sact_det.base.markdown import markdown_table
from sact_det.base.text_files import read_json
from sact_det.engine.setup import merge_config
from sact_det.experiments.runs import mean_text
from sact_det.experiments.table import COLUMNS, values

_QUALITY = {"bbox": "AP", "classification": "accuracy (%)"}
_SHOWN = ("FLOPs (%)", "whole detector (%)")
_FLOPS = "FLOPs (%)"
_HEADS = (
    *("config", "weights", "starts from", "published", _FLOPS),
    *("measured", _FLOPS, "whole (%)", "s an image", "MB in training", "seeds", "log"),
)
_SECTIONS = ("title", "text", "configs", "results", "page", "starts", "weights", "published", "measured", "seconds")


class Found(NamedTuple):
    """What the runs of a config say.

    Attributes:
        cells: column -> mean and deviation over seeds, as text.
        seeds: how many runs there are.
        file: the json below docs/results.
    """

    cells: dict[str, str]
    seeds: int
    file: str


def model_zoo(root: Path) -> str:
    """The page, of docs/model_zoo.json, the configs and docs/results below a checkout of the repository.

    Raises:
        InputError: the data file names what is not there, or a config that trains is in no section.
    """
    path = root / "docs/model_zoo.json"
    sections = read_json(path)
    bar = tqdm(sections, unit="section", disable=None)  # silent where stderr is no terminal
    pages = [_section(path, root, section) for section in bar]
    return "\n".join([_HEADING, *pages])


_HEADING = """# Model zoo

Every config, with what it starts from and what is known of it. "Published" is what the paper, or the README of the
original program, says of this network. "Measured" is AP of detectors and accuracy in percent of classifiers, on test
images of the config's data set, ± the sample deviation over seeds; the log is its numbers and its course. FLOPs are the
paper's count, in percent of the plain extractor's, under "whole" of the whole plain detector's. Seconds are those of a
whole detector, on the page that they link. Memory is the most that a training had allocated on a GPU or, on CPUs,
that its process had resident (`max_memory_mb` in its metrics.json). What nobody has measured is empty.

    python tools/train_net.py --config-file CONFIG                                               # trains it
    python tools/train_net.py --config-file CONFIG --eval-only MODEL.WEIGHTS WEIGHTS            # evaluates it

This page is made by `python tools/model_zoo.py` from docs/model_zoo.json, the configs and the jsons of docs/results.
"""


def configs_of(root: Path, section: Mapping[str, Any]) -> list[str]:
    """Names below configs/ of a section's rows. Raises InputError if a pattern matches none."""
    names: list[str] = []
    for pattern in section["configs"]:
        found = sorted(path.relative_to(root / "configs").as_posix() for path in (root / "configs").glob(pattern))
        if not found:
            raise InputError(f"docs/model_zoo.json: {section['title']}: no config matches {pattern}")
        names += [name for name in found if name not in names and not Path(name).name.startswith("Base-")]
    return names


def _section(path: Path, root: Path, section: dict[str, Any]) -> str:
    unknown = section.keys() - set(_SECTIONS)
    if unknown:
        raise InputError(f"{path}: {section.get('title')}: unknown {', '.join(sorted(unknown))}")
    names = configs_of(root, section)
    for key in ("weights", "published", "measured", "seconds"):
        for name in section.get(key, {}).keys() - set(names):
            raise InputError(f"{path}: {section['title']}: {key} of {name}, which is none of its configs")
    rows = [_row(root, section, name) for name in names]
    page = section.get("page")
    text = section["text"] + (f" How the numbers were made: [{page}](results/{page})." if page else "")
    kept = [column for column in range(len(_HEADS)) if column == 0 or any(row[column] for row in rows)]
    table = markdown_table([_HEADS[column] for column in kept], [[row[column] for column in kept] for row in rows])
    return f"## {section['title']}\n\n{text}\n\n{table}\n"


def _row(root: Path, section: dict[str, Any], name: str) -> list[str]:
    cfg = merge_config(str(root / "configs" / name))
    start = cfg.MODEL.WEIGHTS or next(
        (weights for pattern, weights in section.get("starts", {}).items() if fnmatch(name, pattern)), ""
    )
    published = section.get("published", {}).get(name, {})
    found = _found(root, section.get("results", ()), cfg.OUTPUT_DIR)
    measured = found.cells if found else section.get("measured", {}).get(name, {})
    seconds = section.get("seconds", {}).get(name)
    return [
        f"[{Path(name).stem}](../configs/{name})",
        _code(section.get("weights", {}).get(name)),
        _code(start),
        published.get("quality", ""),
        published.get("flops", ""),
        measured.get("quality", ""),
        measured.get("flops", ""),
        measured.get("whole", ""),
        f"[{seconds['s']}](results/{seconds['page']})" if seconds else "",
        measured.get("memory", ""),
        str(found.seeds) if found else measured.get("seeds", ""),
        f"[json](results/{found.file})" if found else "",
    ]


def _found(root: Path, files: Sequence[str], output: str) -> Optional[Found]:
    for file in files:
        for row in read_json(root / "docs/results" / file)["rows"]:
            runs = [run for run in row["runs"] if run["folder"] == output or run["folder"].startswith(f"{output}/")]
            if runs:
                return Found(_cells({**row, "runs": runs}), len(runs), file)
    return None


def _cells(row: dict[str, Any]) -> dict[str, str]:
    results = row["runs"][0]["results"]
    evaluator = next(name for name in _QUALITY if name in results)
    titles = dict(zip((_QUALITY[evaluator], *_SHOWN), ("quality", "flops", "whole")))
    columns = [one for one in COLUMNS[evaluator] if one.title in titles and one.key in results[one.evaluator]]
    cells = {titles[one.title]: mean_text(values(row, one), one.digits) for one in columns}
    memory = [run["memory_mb"] for run in row["runs"] if run.get("memory_mb")]
    return {**cells, "memory": f"{max(memory):,.0f}"} if memory else cells


def _code(text: Optional[str]) -> str:
    return f"`{text}`" if text else ""
