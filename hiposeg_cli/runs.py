"""Training runs on disk, read and compared: what their configurations differ in, and how scores spread over seeds.

Owns the grouping, the statistics and `eval.json`, in which a run keeps its evaluations. Scoring itself is the caller's:
nothing here needs the network.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from hiposeg_cli.config import flatten
from hiposeg_cli.errors import ConfigError, DataError, HiposegError, OutputError
from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.inspection.statistics import Tally
from hiposeg_cli.labelmap import write_bytes_atomic
from hiposeg_cli.store import Dataset, open_dataset, read_json, sha256_file
from hiposeg_cli.strict_yaml import load_yaml, plain

Which = Literal["best", "last"]
Summary = Mapping[str, Any]  # what `metrics.summarize` returns
Verdict = Literal["beyond the spread", "within the spread", "one seed, no claim"]

NOT_COMPARED = frozenset({"loop.seed", "data.path", "data.workers", "loop.save_every", "loop.log_every", "loop.tensorboard"})
"""Settings that make no group: seeds are averaged, data is checked, workers, saving and logs never change a result."""
CHOOSE_IMAGES = ("data.fraction", "data.also")
"""Settings that choose training images of one dataset: where they differ, so may the number of images."""

RAREST, SEVERITY = "rarest third mIoU", "mistake severity"


@dataclass(frozen=True)
class SavedRun:
    """What a run folder says about itself.

    Attributes:
        settings: dotted keys; `init` is there too where the run began from another run's weights, and `processes`, which
            share a step.
        validations: lines of metrics.jsonl with scores, in order of steps.
        step, total_steps, images: how far training is, how far it goes, on how many images; None without a saved state.
    """

    folder: Path
    settings: Mapping[str, Any]
    hierarchy: Hierarchy
    validations: tuple[Mapping[str, Any], ...]
    versions: Mapping[str, str]
    step: int | None
    total_steps: int | None
    images: int | None

    @property
    def seed(self) -> int:
        return int(self.settings.get("loop.seed", 0))

    @property
    def method(self) -> str:
        return str(self.settings.get("method.name"))

    @property
    def finished(self) -> bool:
        """True after an early stop, and where no state says otherwise."""
        if self.step is None or self.total_steps is None or self.step >= self.total_steps:
            return True
        return bool(self.validations and self.validations[-1].get("stopped_early"))

    def compared(self) -> dict[str, Any]:
        """The settings that tell configurations apart; of several GPUs none is another device."""
        device = str(self.settings.get("loop.device", "auto"))
        kind = "cuda" if device[:1].isdigit() else device.split(":")[0]
        return {key: value for key, value in self.settings.items() if key not in NOT_COMPARED} | {"loop.device": kind}

    def validated(self, which: Which) -> dict[str, float | None]:
        """mIoU of each level as training logged it. Raises DataError when nothing was validated."""
        names = {f"val_{level.name}_miou": f"{level.name} mIoU" for level in self.hierarchy.levels}
        fine = next(iter(names))
        scored = [line for line in self.validations if line.get(fine) is not None]
        if not scored:
            raise DataError(self.folder, "holds no validation", "pass --data to score its weights")
        line = scored[-1] if which == "last" else max(scored, key=lambda line: float(line[fine]))
        return {name: line.get(key) for key, name in names.items()}


def is_run(folder: Path) -> bool:
    """Whether `hiposeg train` wrote this folder."""
    env = folder / "env.json"
    return (folder / "config.yaml").is_file() and env.is_file() and b"hiposeg-cli" in env.read_bytes()


def require_run(folder: Path) -> None:
    """Raise ConfigError where `hiposeg train` did not write this folder."""
    if not is_run(folder):
        raise ConfigError(folder, "is not a run folder (no config.yaml)", "name the folder that `hiposeg train` wrote")


def find_runs(folder: Path) -> list[Path]:
    """Every run folder at or below `folder`, by name. Raises DataError when there is no such folder."""
    if not folder.is_dir():
        raise DataError(folder, "no such folder", "name the folder that holds the runs, such as runs/train")
    return sorted(path.parent for path in folder.rglob("env.json") if is_run(path.parent))


def read_run(folder: Path) -> SavedRun:
    """Read a run folder. Raises ConfigError when it is none, DataError when a file of it is broken."""
    require_run(folder)
    settings = plain(load_yaml(folder / "config.yaml"))
    if not isinstance(settings, dict):
        raise DataError(folder / "config.yaml", "does not hold settings", "restore the file, or train again")
    env, progress = read_json(folder / "env.json"), _progress(folder / "state.safetensors")
    flat = flatten(settings) | {"processes": env.get("processes", 1)}
    if not isinstance(flat.get("loop.seed", 0), int):
        raise DataError(folder / "config.yaml", f"loop.seed is {flat['loop.seed']!r}", "restore the file, or train again")
    init = _begun_from(env.get("command"))
    return SavedRun(
        folder, flat if init is None else flat | {"init": init}, load_hierarchy(folder / "hierarchy.yaml"),
        _validations(folder / "metrics.jsonl"), env.get("versions", {}),
        progress.get("step"), progress.get("total_steps"), progress.get("images"),
    )  # fmt: skip


def _begun_from(command: Any) -> str | None:
    """The run that `--init` named; only the command line of env.json knows it."""
    words = [str(word) for word in command] if isinstance(command, list) else []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "--init":
            return following
        if word.startswith("--init="):
            return word.removeprefix("--init=")
    return None


def _progress(path: Path) -> dict[str, Any]:
    """Plain values of the training state; {} where it was not kept."""
    if not path.is_file():
        return {}
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get("hiposeg", "{}"))
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(path, f"is not a readable training state ({error})", "restore the file, or delete it") from None
    progress: dict[str, Any] = header.get("progress", {})
    return progress


def _validations(path: Path) -> tuple[dict[str, Any], ...]:
    """Lines with validation scores; a line that a killed run was writing is left out."""
    if not path.is_file():
        return ()
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        values = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
    except ValueError as error:
        raise DataError(path, f"cannot be read ({error})", "restore the file, or train again") from None
    return tuple(line for line in values if any(key.startswith("val_") for key in line))


# -- what may be compared ----------------------------------------------------------------------------------------------


def check_comparable(runs: Sequence[SavedRun], *, one_evaluation: bool) -> list[str]:
    """Refuse runs whose numbers do not belong beside each other.

    Args:
        one_evaluation: whether all are scored on one dataset now; else each was validated on its own.
    Returns: remarks that do not stand in the way.
    Raises: DataError or HierarchyError naming the first run that does not fit.
    """
    first = runs[0]
    seen: dict[str, Path] = {}
    drawn_alike: dict[str, SavedRun] = {}
    for run in runs:
        if not run.finished:
            raise DataError(
                run.folder, f"is not finished (step {run.step} of {run.total_steps})",
                f"continue with `hiposeg train --resume {run.folder}`, or leave it out",
            )  # fmt: skip
        first.hierarchy.require_same(run.hierarchy, mine=first.folder, theirs=run.folder)
        alike = drawn_alike.setdefault(json.dumps([run.settings.get(name) for name in CHOOSE_IMAGES]), run)
        if run.images is not None and alike.images is not None and run.images != alike.images:
            raise DataError(
                run.folder, f"was trained on {run.images} images, {alike.folder} on {alike.images}",
                "compare runs of one training split",
            )  # fmt: skip
        same = json.dumps([run.seed, run.compared()], sort_keys=True, default=str)
        if same in seen:
            raise DataError(run.folder, f"has the settings and the seed of {seen[same]}", "name only one of them")
        seen[same] = run.folder
    if not one_evaluation:
        _require_one_dataset(runs)
    pairs = ((name, {run.versions.get(name, "unknown") for run in runs}) for name in ("hiposeg-cli", "torch"))
    return [f"the runs were made with several versions of {name}: {', '.join(sorted(v))}" for name, v in pairs if len(v) > 1]


def _require_one_dataset(runs: Sequence[SavedRun]) -> None:
    """Validations on different images say nothing about each other."""
    mine = str(runs[0].settings.get("data.path"))
    digests = {mine: _splits_digest(Path(mine))}
    for run in runs:
        path = str(run.settings.get("data.path"))
        if path == mine:
            continue
        digests[path] = digests.get(path) or _splits_digest(Path(path))
        if digests[path] is None or digests[path] != digests[mine]:
            raise DataError(
                run.folder, f"was validated on {path}, {runs[0].folder} on {mine}", "pass --data to score all on one dataset"
            )


def _splits_digest(path: Path) -> str | None:
    """Names the training and validation images of a dataset; None where it is gone or cannot be read."""
    try:
        return open_dataset(path).training_digest
    except HiposegError:
        return None


def rarest_third(dataset: Dataset) -> tuple[str, ...]:
    """Fine classes with the fewest training pixels, as `hiposeg inspect` lists them; none without a training split."""
    tally = Tally(dataset.hierarchy)
    for row in dataset.rows.get("train", ()):
        tally.add(row)
    imbalance = tally.finish().imbalance[dataset.hierarchy.fine.name]
    return imbalance.rarest if imbalance.split == "train" else ()


# -- evaluations a run keeps -------------------------------------------------------------------------------------------


def evaluation(run: SavedRun, dataset: Dataset, split: str, which: Which, score: Callable[[], Summary]) -> Summary:
    """The evaluation of a run's weights on a split, from its eval.json where that was made of these very files.

    Args:
        score: makes the summary where none is kept.
    Raises: DataError when the run has no such weights.
    """
    weights, path = run.folder / "weights" / f"{which}.safetensors", run.folder / "eval.json"
    if not weights.is_file():
        raise DataError(weights, "no such weights file", "train again, or leave the run out")
    key = f"{sha256_file(weights)}-{dataset.digest(split)}-{split}-{version('hiposeg-cli')}"
    kept = read_json(path).get("evaluations") if path.is_file() else {}
    if not isinstance(kept, dict):
        raise DataError(path, "was changed by hand (`evaluations`)", "delete the file")
    if key not in kept:
        kept[key] = dict(score())
        with suppress(OutputError):  # the runs of someone else can be compared too
            write_bytes_atomic(path, (json.dumps({"evaluations": kept}, ensure_ascii=False) + "\n").encode())
    summary: Summary = kept[key]
    return summary


def measures_of(summary: Summary, rarest: Sequence[str]) -> dict[str, float | None]:
    """The numbers a comparison shows; None where undefined.

    Args:
        rarest: names of fine classes; those absent from the split are left out of their mean.
    """
    levels = summary["levels"]
    fine = next(iter(levels.values()))
    ious = [entry["iou"] for entry in fine["classes"] if entry["name"] in rarest and entry["iou"] is not None]
    values = {f"{name} mIoU": level["miou"] for name, level in levels.items()}
    return values | {RAREST: statistics.fmean(ious) if ious else None, SEVERITY: summary["mistake_severity"]}


# -- statistics --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """One measure over seeds. `deviation` is the standard deviation with n - 1, None for a single seed."""

    values: tuple[float, ...]
    mean: float
    deviation: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """This row less the first one. Beyond the spread: by more than both standard deviations together."""

    value: float
    verdict: Verdict


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but their seed; a measure is None where a run lacks it."""

    settings: Mapping[str, Any]
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    measures: Mapping[str, Spread | None]
    differences: Mapping[str, Difference | None]


@dataclass(frozen=True)
class Comparison:
    """Groups in the order in which their first runs were given.

    Attributes:
        differing: the settings in which groups differ, `method.name` first.
        source: how the numbers were made, in words.
        rarest: the classes behind `RAREST`; empty where nothing was evaluated by class.
    """

    differing: tuple[str, ...]
    measures: tuple[str, ...]
    groups: tuple[Group, ...]
    source: str
    rarest: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def spread(values: Sequence[float | None]) -> Spread | None:
    """Mean, deviation and range; None when a value is missing, since a mean over the others would be of other runs."""
    known = tuple(value for value in values if value is not None)
    if not known or len(known) < len(values):
        return None
    deviation = statistics.stdev(known) if len(known) > 1 else None
    return Spread(known, statistics.fmean(known), deviation, min(known), max(known))


def difference(first: Spread | None, other: Spread | None) -> Difference | None:
    """How far a measure lies from the first row's, and whether seeds alone could explain it."""
    if first is None or other is None:
        return None
    value = other.mean - first.mean
    if first.deviation is None or other.deviation is None:
        return Difference(value, "one seed, no claim")
    beyond = abs(value) > first.deviation + other.deviation
    return Difference(value, "beyond the spread" if beyond else "within the spread")


def differing_settings(runs: Sequence[SavedRun]) -> tuple[str, ...]:
    """Settings not equal in all runs, in the order of the files; the method is always among them and first.

    An option of one method is compared among the runs of that method only.
    """
    compared = [(run.method, run.compared()) for run in runs]
    keys = dict.fromkeys(key for _, settings in compared for key in settings)
    found = ["method.name"]
    for key in keys:
        owners = {method for method, settings in compared if key in settings}
        among = [s for method, s in compared if method in owners or not key.startswith("method.")]
        if key != "method.name" and len({json.dumps(s.get(key), default=str) for s in among}) > 1:
            found.append(key)
    return tuple(found)


def compare(
    runs: Sequence[SavedRun], values: Sequence[Mapping[str, float | None]], *, source: str, rarest: tuple[str, ...] = ()
) -> Comparison:
    """Group runs by configuration and spread their values over seeds.

    Args:
        values: measure -> value of each run.
    """
    differing = differing_settings(runs)
    members: dict[str, list[int]] = {}
    for index, run in enumerate(runs):
        members.setdefault(json.dumps(run.compared(), sort_keys=True, default=str), []).append(index)
    measures = tuple(values[0])
    groups: list[Group] = []
    for indices in members.values():
        indices.sort(key=lambda index: runs[index].seed)
        spreads = {name: spread([values[index][name] for index in indices]) for name in measures}
        first = groups[0].measures if groups else None
        settings = runs[indices[0]].compared()
        groups.append(Group(
            settings={key: settings.get(key) for key in differing}, measures=spreads,
            runs=tuple(str(runs[index].folder) for index in indices), seeds=tuple(runs[index].seed for index in indices),
            differences={} if first is None else {name: difference(first[name], spreads[name]) for name in measures},
        ))  # fmt: skip
    return Comparison(differing, measures, tuple(groups), source, rarest)
