"""What OUT holds: predictions.json says which model made it, predictions.jsonl which photo each result is of.

A photo's line is added after its files are there, so whatever is killed continues where it stopped. Parts of a whole
(--shard) keep lines of their own, in predictions-2-of-4.jsonl, and read those of all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hiposeg_cli.errors import DataError, OutputError
from hiposeg_cli.infer.prediction import Source
from hiposeg_cli.labelmap import write_bytes_atomic
from hiposeg_cli.locks import is_alive
from hiposeg_cli.store import sha256_file

DONE, FAILED = "done", "failed"


@dataclass(frozen=True)
class Entry:
    """One line.

    Attributes:
        id: names the model and the settings; see `Predictor.identity`.
        photo: path of the photo; `sha256`, `bytes` and `mtime_ns` are its file's.
        width, height: of the photo in px; 0 where it could not be read.
        seconds: reading, segmenting and writing; of a batch, its share.
        status: `done`, or `failed` with the reason in `error`.
    """

    id: str
    name: str
    photo: str
    sha256: str
    bytes: int
    mtime_ns: int
    width: int
    height: int
    seconds: float
    status: str = DONE
    error: str = ""

    @property
    def line(self) -> str:
        return json.dumps(asdict(self)) + "\n"


class Record:
    """The lines of OUT.

    Args:
        identity: names the model and the settings; results of another are refused.
        about: what else predictions.json says.
        names: of all photos that are predicted now, by any part.
        suffix: of this part's file; "" for the whole.
        overwrite: whether results of another model may be replaced, if none of them would stay among the new ones.
        resume: whether OUT must hold results already.
    Raises: DataError when OUT holds something else.
    """

    def __init__(
        self, out: Path, identity: str, about: dict[str, Any], names: Collection[str], *, suffix: str = "",
        overwrite: bool = False, resume: bool = False,
    ) -> None:  # fmt: skip
        self.out, self.identity = out, identity
        self.about_path, self.lines_path = out / "predictions.json", out / f"predictions{suffix}.jsonl"
        self.found: dict[str, Entry] = {}
        self.own: dict[str, Entry] = {}
        self._claim(overwrite=overwrite, resume=resume)
        self._read(names)
        if overwrite or not self.about_path.exists():
            text = json.dumps({"id": identity, **about}, indent=1, ensure_ascii=False)
            write_bytes_atomic(self.about_path, (text + "\n").encode())

    def _claim(self, *, overwrite: bool, resume: bool) -> None:
        out = self.out
        if out.exists() and not out.is_dir():
            raise DataError(out, "is a file", "name a folder with --out")
        if overwrite:
            return
        if self.about_path.exists():
            self._require_same_model()
        elif resume:
            raise DataError(out, "holds no predictions that could be continued", "check --out, or leave --resume out")
        elif out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
            cure = "choose another --out, or pass --overwrite"
            raise DataError(out, "is not empty and holds no predictions of hiposeg", cure)

    def _require_same_model(self) -> None:
        try:
            theirs = json.loads(self.about_path.read_text(encoding="utf-8")).get("id")
        except (ValueError, AttributeError):
            theirs = None
        if theirs != self.identity:
            what = "holds the predictions of another model, input size, precision, decoding rule or other settings"
            raise DataError(self.out, what, "choose another --out, or pass --overwrite")

    def _read(self, names: Collection[str]) -> None:
        """Take in the lines of all parts: of a photo the last one, of several parts rather one that is done.

        Raises: DataError when photos outside `names` have results of another model.
        """
        others: set[str] = set()
        for path in sorted(self.out.glob("predictions*.jsonl")):
            found: dict[str, Entry] = {}
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, TypeError):  # one that a killed run was writing
                    entry = Entry(**json.loads(line))
                    if entry.id == self.identity:
                        found[entry.name] = entry
                    elif entry.status == DONE:
                        others.add(entry.name)
            if path == self.lines_path:
                self.own = dict(found)
            self.found |= {name: entry for name, entry in found.items() if name not in self.found or entry.status == DONE}
        if stay := sorted(others - set(names) - {name for name, entry in self.found.items() if entry.status == DONE}):
            what = f"holds results of another model or settings for {len(stay)} photos not named now, such as {stay[0]}"
            raise DataError(self.out, what, "name these photos too, or choose another --out")

    def holds(self, source: Source, targets: Sequence[Path]) -> bool:
        """Whether all results of a photo are there and of this very photo.

        Raises: DataError when they are of another file, which would lose its own.
        """
        entry = self.found.get(source.name)
        if entry is None or entry.status != DONE:
            return False
        try:
            stat = source.path.stat()
        except OSError:
            return False  # reading the photo says why
        same_path = entry.photo == str(source.path.resolve())
        same = same_path and (entry.bytes, entry.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
        same = same or (entry.bytes == stat.st_size and entry.sha256 == sha256_file(source.path))
        if not same and not same_path:
            what = f"its results would replace those of {entry.photo}"
            raise DataError(source.path, what, "choose another --out, or rename it")
        return same and all(path.exists() for path in targets)

    def add(self, entry: Entry) -> None:
        """Append a line."""
        self.own[entry.name] = entry
        try:
            with self.lines_path.open("a", encoding="utf-8") as file:
                file.write(entry.line)
        except OSError as error:
            what = f"cannot be written ({error.strerror})"
            raise OutputError(self.lines_path, what, "free disk space or choose another folder") from None

    def close(self, order: Iterable[Source]) -> None:
        """Write the lines again, one a photo, in the order of the photos; those of photos not named now come first."""
        place = {source.name: number for number, source in enumerate(order)}
        entries = sorted(self.own.values(), key=lambda entry: (place.get(entry.name, -1), entry.name))
        write_bytes_atomic(self.lines_path, "".join(entry.line for entry in entries).encode())

    def remove_torn(self, targets: Callable[[], set[Path]]) -> None:
        """Delete what killed processes of this machine left half written of some files."""
        torn = list(self.out.rglob(".*.tmp")) if self.about_path.exists() else []
        wanted = targets() if torn else set()
        for path in torn:
            name, _, process = path.name[1:].removesuffix(".tmp").rpartition(".")
            if process.isdigit() and path.with_name(name) in wanted and not is_alive(int(process)):
                with suppress(OSError):
                    path.unlink()


def entry_of(
    identity: str, source: Source, *, sha256: str = "", size: tuple[int, int] = (0, 0), seconds: float = 0.0, error: str = ""
) -> Entry:
    """The line of a photo, with what its file's system says about it now.

    Args:
        size: (H, W) in px.
    """
    try:
        stat = source.path.stat()
        n_bytes, mtime_ns = stat.st_size, stat.st_mtime_ns
    except OSError:
        n_bytes = mtime_ns = 0
    return Entry(
        identity, source.name, str(source.path.resolve()), sha256, n_bytes, mtime_ns, size[1], size[0], round(seconds, 4),
        FAILED if error else DONE, error,
    )  # fmt: skip
