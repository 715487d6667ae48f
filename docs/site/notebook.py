"""Makes notebooks pages: text as it is, code and what it printed as blocks, pictures as files beside the page."""

import base64
import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for every notebook, which itself stays a file that can be downloaded."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        name = notebook.src_uri.removesuffix(".ipynb")
        parts, pictures = [], 0
        for cell in json.loads(Path(str(notebook.abs_src_path)).read_text(encoding="utf-8"))["cells"]:
            source = "".join(cell["source"])
            parts.append(source if cell["cell_type"] == "markdown" else block(source, "python"))
            for output in cell.get("outputs", ()):
                data = output.get("data", {})
                if "image/png" in data:
                    picture = f"{name}_{pictures}.png"
                    pictures += 1
                    files.append(File.generated(config, picture, content=base64.b64decode("".join(data["image/png"]))))
                    parts.append(f"![What the cell drew]({Path(picture).name})")
                elif text := printed(output):
                    parts.append(block(text, "text"))
        parts.append(f"[This page as a notebook]({Path(notebook.src_uri).name})")
        files.append(File.generated(config, f"{name}.md", content="\n\n".join(parts)))
    return files


def block(text: str, language: str) -> str:
    """A fenced block."""
    return f"``````{language}\n{text.strip()}\n``````"


def printed(output: dict[str, Any]) -> str:
    """What a cell printed or evaluated to, as text."""
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    return "".join(text).strip()
