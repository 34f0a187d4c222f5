"""Hugging Face datasets: parquet shards with the photo and both label maps, and a dataset card with the class names."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hiposeg_cli.errors import ConfigError
from hiposeg_cli.exports.base import Exporter, Results, label_bytes
from hiposeg_cli.exports.folder import write_text
from hiposeg_cli.exports.photos import photo_bytes, photo_path, photo_suffix
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.store import Row

_SHARD_BYTES = 400_000_000
_GROUP_BYTES = 64_000_000
_GROUP_ROWS = 100


@dataclass(frozen=True)
class _Record:
    """The files of one image."""

    image: bytes
    fine: bytes
    coarse: bytes

    def __len__(self) -> int:
        return len(self.image) + len(self.fine) + len(self.coarse)


class HuggingFace(Exporter[_Record]):
    """data/SPLIT-*.parquet with image, fine and coarse as Image features, and README.md as the dataset card."""

    name = "hf"
    levels = ()
    default_level = None
    image_modes = ("copy",)

    def check(self) -> None:
        try:
            import datasets  # noqa: F401
        except ImportError:
            raise ConfigError("--as hf", "needs the package 'datasets'", "pip install 'hiposeg-cli[hf]'") from None

    def write(self, folder: Path, results: Results[_Record]) -> None:
        names = _split_names(self.splits)
        for split in self.splits:
            if names[split] != split:
                self.warnings.append(f"split {split!r} is called {names[split]!r}: Hugging Face takes letters, digits and _")
            self._write_split(folder / "data", split, names[split], results)
        write_text(folder / "README.md", _card(self.hierarchy, names))

    def _write_split(self, folder: Path, split: str, name: str, results: Results[_Record]) -> None:
        rows = self.dataset.split(split)
        n_bytes = sum(photo_path(self.dataset, row).stat().st_size for row in rows)
        n_shards = max(1, min(len(rows), -(-n_bytes // _SHARD_BYTES)))
        pairs = results(split)
        folder.mkdir(exist_ok=True)
        for shard in range(n_shards):
            size = len(rows) * (shard + 1) // n_shards - len(rows) * shard // n_shards
            self._write_shard(folder / f"{name}-{shard:05d}-of-{n_shards:05d}.parquet", pairs, size)
        assert next(pairs, None) is None

    def _write_shard(self, path: Path, pairs: Iterator[tuple[Row, _Record]], size: int) -> None:
        """Write the next `size` images, a bounded number of bytes at a time."""
        import pyarrow
        import pyarrow.parquet

        schema = features(self.hierarchy).arrow_schema
        with pyarrow.parquet.ParquetWriter(path, schema) as writer:
            group: list[dict[str, Any]] = []
            held = 0
            for _ in range(size):
                row, record = next(pairs)
                group.append(self._record(row, record))
                held += len(record)
                if held >= _GROUP_BYTES or len(group) >= _GROUP_ROWS:
                    writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
                    group, held = [], 0
            if group or not size:
                writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))

    def _record(self, row: Row, record: _Record) -> dict[str, Any]:
        return {
            "key": row.key,
            "image": {"bytes": record.image, "path": row.key + photo_suffix(row)},
            "fine": {"bytes": record.fine, "path": f"{row.key}.png"},
            "coarse": {"bytes": record.coarse, "path": f"{row.key}.png"},
            "fine_classes": sorted(int(class_id) for class_id in row.fine_counts),
            "coarse_classes": sorted(int(class_id) for class_id in row.coarse_counts),
        }

    def convert(self, row: Row, folder: Path) -> _Record:
        """The files of one image, checked against the manifest."""
        fine, coarse = (label_bytes(self.dataset, row, level) for level in ("fine", "coarse"))
        return _Record(photo_bytes(self.dataset, row), fine, coarse)


def features(hierarchy: Hierarchy) -> Any:
    """The columns: the three images, and which classes occur, which is where the class names are kept."""
    from datasets import ClassLabel, Features, Image, Sequence, Value

    fine, coarse = ClassLabel(names=hierarchy.fine.names), ClassLabel(names=hierarchy.coarse.names)
    return Features(
        {
            "key": Value("string"), "image": Image(), "fine": Image(), "coarse": Image(),
            "fine_classes": Sequence(fine), "coarse_classes": Sequence(coarse),
        }
    )  # fmt: skip


def _split_names(splits: Iterable[str]) -> dict[str, str]:
    """Split -> the name it gets: other characters become _, and a name that is taken gets another _."""
    names: dict[str, str] = {}
    for split in splits:
        name = re.sub(r"\W", "_", split, flags=re.ASCII)
        while name in names.values():
            name += "_"
        names[split] = name
    return names


def _card(hierarchy: Hierarchy, splits: dict[str, str]) -> str:
    """README.md: front matter that `load_dataset` follows, then the class tables for people."""
    files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in splits.values()]
    front = {
        "pretty_name": hierarchy.name,
        "task_categories": ["image-segmentation"],
        "configs": [{"config_name": "default", "data_files": files}],
        "class_names": {"fine": hierarchy.fine.names, "coarse": hierarchy.coarse.names},
        "parents": [int(parent) for parent in hierarchy.parent],
    }
    lines = [
        f"# {hierarchy.name}", "",
        "Segmentation on two levels. `fine` and `coarse` are PNGs of class ids; the largest value of their type (255 in",
        "8 bit, 65535 in 16 bit) is ignore. A pixel may have a coarse class and no fine one.", "",
        "| fine id | class | coarse id | class |", "|---|---|---|---|",
    ]  # fmt: skip
    for node in hierarchy.fine.nodes:
        parent = int(hierarchy.parent[node.id])
        cells = (str(node.id), _cell(node.name), str(parent), _cell(hierarchy.coarse.names[parent]))
        lines.append("| " + " | ".join(cells) + " |")
    head = yaml.safe_dump(front, allow_unicode=True, sort_keys=False, width=1_000_000)
    return f"---\n{head}---\n\n" + "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1].replace("|", "\\|")
