"""The page of an evaluation: one HTML file with everything in it, which asks the network for nothing.

It states what the terminal states, in the same words, and adds the tree of classes, confusion matrices and pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from hiposeg_cli.errors import HiposegError
from hiposeg_cli.evaluation.comparison import ResultComparison
from hiposeg_cli.evaluation.result import KINDS, EvalResult, ImageResult
from hiposeg_cli.report.eval_assets import CSS, NO_SCRIPT, SCRIPT
from hiposeg_cli.report.eval_matrices import calibration_section, confusion_section
from hiposeg_cli.report.eval_pictures import COLOURS, IGNORED, RELATED, WRONG, ComparedPicture, compared_picture
from hiposeg_cli.report.eval_tree import class_tree
from hiposeg_cli.report.html import chip, document, nav, rich_table, rich_text, tile
from hiposeg_cli.report.inspect_assets import CSS as BASE_CSS
from hiposeg_cli.report.inspect_assets import SCRIPT as BASE_SCRIPT
from hiposeg_cli.report.tables import beside_lines, comparison_tables, curve_table, level_line, percent, protocol_line

SAMPLES = 6
_MAX_PROBLEMS = 50
_MAX_CHIPS = 16
_KINDS = {"photo": "photo", "truth": "truth", "prediction": "prediction", "wrong": "mistakes"}


@dataclass(frozen=True)
class Report:
    """What a page is made of.

    Attributes:
        against, comparison: the other side and how the two differ; None without one.
        failures: the gates that did not hold, in words.
        samples: images shown of the worst, and as many at random by `seed`.
    """

    result: EvalResult
    against: EvalResult | None = None
    comparison: ResultComparison | None = None
    failures: tuple[str, ...] = ()
    samples: int = SAMPLES
    seed: int = 0


def evaluation_page(report: Report) -> str:
    """The page as text; equal evaluations give equal pages."""
    sections = {
        "levels": ("Levels", _levels(report)),
        "classes": ("Classes", class_tree(report.result, report.comparison)),
        "compared": ("Compared", _comparison(report)),
        "confusion": ("Confusion", confusion_section(report.result)),
        "calibration": ("Calibration", calibration_section(report.result.summary)),
        "back-off": ("Back-off", _curve(report.result.summary)),
        "images": ("Images", _images(report)),
        "problems": ("Not scored", _problems(report)),
    }
    shown = {key: (word, body) for key, (word, body) in sections.items() if body}
    head = _head(report.result, {key: word for key, (word, _body) in shown.items()})
    body = "".join(f'<h2 id="{key}">{word}</h2>{body}' for key, (word, body) in shown.items())
    title = f"{_name(report.result.summary)}: evaluation"
    return document(title, head + body + NO_SCRIPT, style=BASE_CSS + CSS, script=BASE_SCRIPT + SCRIPT)


def _name(summary: dict[str, Any]) -> str:
    return str(summary.get("run") or summary.get("predictions"))


def _head(result: EvalResult, links: dict[str, str]) -> str:
    summary, hierarchy = result.summary, result.hierarchy
    levels = ", ".join(f"{len(level)} {level.name}" for level in hierarchy.levels)
    about = f"{summary['split']} of {summary['data']}, hierarchy {hierarchy.name} ({levels} classes)"
    tiles = [_miou_tile(name, summary) for name in summary["levels"]]
    tiles.append(tile(f"{summary['images']:,}", f"images scored of {len(result.truth.images):,}"))
    return (
        f'<header><h1>{escape(_name(summary))}</h1><p class="soft">{escape(about)}</p>{nav(links)}</header>'
        f'<div class="tiles">{"".join(tiles)}</div>\n'
    )


def _miou_tile(name: str, summary: dict[str, Any]) -> str:
    level, sure = summary["levels"][name], summary.get("intervals", {}).get(name)
    interval = f" (95 % over images: {percent(sure['low'])} to {percent(sure['high'])})" if sure else ""
    return tile(percent(level["miou"]), f"{escape(name)} mIoU{interval} over {level['classes_averaged']} classes")


def _levels(report: Report) -> str:
    """Everything the terminal states of the levels, line by line."""
    summary, names = report.result.summary, list(report.result.summary["levels"])
    merged, sure = summary.get("merged", {}), summary.get("intervals", {})
    lines = []
    for name in names:
        lines.append(level_line(f"{name} own" if name in merged else name, summary["levels"][name], sure.get(name)))
        if name in merged:
            lines.append(level_line(f"{name} merged", merged[name]))
    lines += [
        *beside_lines(summary, names),
        protocol_line(summary),
        f"rules {summary['rules']}: {report.result.protocol.text}",
    ]
    failures = "".join(f'<p class="warn">--fail-under: {escape(failure)}</p>' for failure in report.failures)
    share = summary["ignored_share"]
    ignored = "" if share is None else f'<p class="soft">{100 * share:.3g} % of all pixels are ignored in the truth.</p>'
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'{failures}{ignored}<div class="card"><ul class="said">{items}</ul></div>\n'


def _comparison(report: Report) -> str:
    if report.against is None or report.comparison is None:
        return ""
    names = [level.name for level in report.result.hierarchy.levels]
    table, note = comparison_tables(report.comparison, names, per_class=True)
    other = f"{_name(report.against.summary)}: {protocol_line(report.against.summary)}"
    return f'<p>against {escape(other)}</p>{rich_table(table)}<p class="soft">{rich_text(note)}</p>\n'


def _curve(summary: dict[str, Any]) -> str:
    return rich_table(curve_table(summary["curve"])) if "curve" in summary else ""


def _problems(report: Report) -> str:
    """What was not scored, of both sides."""
    parts = []
    for result in (report.result, report.against):
        if result is None or not result.problems:
            continue
        counts = ", ".join(f"{number} {KINDS[kind]}" for kind, number in result.problem_counts().items())
        listed = "".join(f"<li>{escape(str(problem))}</li>" for problem in result.problems[:_MAX_PROBLEMS])
        more = len(result.problems) - _MAX_PROBLEMS
        rest = f'<p class="soft">and {more} more (--json lists all)</p>' if more > 0 else ""
        of_all = f"{len(result.images)} of {len(result.truth.images)} images are"
        words = f"{_name(result.summary)}: not scored: {counts}; {of_all}"
        parts.append(f'<p class="warn">{escape(words)}</p><div class="card"><ul class="said">{listed}</ul>{rest}</div>')
    return "".join(parts)


# -- images ------------------------------------------------------------------------------------------------------------


def _images(report: Report) -> str:
    """The worst images of the finest level and some at random, each shown once."""
    result, finest = report.result, report.result.hierarchy.fine.name
    worst = result.worst(finest, report.samples)
    listed = {image.key for image in worst}
    drawn = result.drawn(report.samples, report.seed)
    others = [image for image in drawn if image.key not in listed]
    above = f", {len(drawn) - len(others)} of them above" if len(others) < len(drawn) else ""
    parts = []
    for title, images in ((f"Worst on {finest}", worst), (f"{len(drawn)} at random (seed {report.seed}){above}", others)):
        if images:
            figures = "".join(_figure(result, image) for image in images)
            parts.append(f'<h3>{escape(title)}</h3><div class="gallery">{figures}</div>\n')
    return _choices(result) + "".join(parts) if parts else ""


def _choices(result: EvalResult) -> str:
    """What is shown left and right of the dividers, of which level, and how strongly."""
    levels = [_radio("level", str(depth), level.name, depth == 0) for depth, level in enumerate(result.hierarchy.levels)]
    parts = [f"<fieldset><legend>level</legend>{''.join(levels)}</fieldset>"]
    for side, first in (("left", "truth"), ("right", "prediction")):
        radios = "".join(_radio(side, kind, word, kind == first) for kind, word in _KINDS.items())
        parts.append(f"<fieldset><legend>{side}</legend>{radios}</fieldset>")
    parts.append('<label>colours <input type="range" id="opacity" autocomplete="off" min="0" max="100" value="65"></label>')
    legend = {RELATED: "wrong class, right parent", WRONG: "wrong", IGNORED: "ignored in the truth"}
    chips = "".join(chip(COLOURS[kind], words) for kind, words in legend.items())
    return (
        '<p class="soft">Drag the line in a picture, or move it with the arrow keys. Background stays clear.</p>'
        f'<div class="card choices">{"".join(parts)}<div class="chips"><b>mistakes</b> {chips}</div></div>'
    )


def _radio(name: str, value: str, word: str, checked: bool) -> str:
    state = " checked" if checked else ""
    text = escape(word)
    return f'<label><input type="radio" name="{name}" value="{value}" data-word="{text}"{state}> {text}</label>'


def _figure(result: EvalResult, image: ImageResult) -> str:
    try:
        picture = compared_picture(result.shown(image), result.hierarchy, result.protocol)
    except HiposegError as error:
        stage = f'<p class="warn">cannot be shown: {escape(str(error))}</p>'
        return f'<figure class="card sample">{_caption(result, image)}{stage}</figure>'
    return f'<figure class="card sample compare">{_caption(result, image)}{_stage(result, image, picture)}</figure>\n'


def _caption(result: EvalResult, image: ImageResult) -> str:
    scores = ", ".join(f"{level.name} mIoU {percent(image.miou[level.name])}" for level in result.hierarchy.levels)
    words = f"{image.width} \u00d7 {image.height}, {scores}, {percent(image.wrong_share)} % of the pixels wrong"
    return f"<figcaption>{escape(image.key)}<br><small>{escape(words)}</small></figcaption>"


def _stage(result: EvalResult, image: ImageResult, picture: ComparedPicture) -> str:
    """Two halves over each other, cut at the divider; the pictures they show are kept once, out of sight."""
    key = escape(image.key)
    halves = "".join(
        f'<div class="half {side}"><img class="photo" alt="" hidden><img class="tint" alt="" hidden></div>'
        f'<span class="word of-{side}"></span>'
        for side in ("left", "right")
    )
    sources = [_source("photo", 0, picture.photo, f"photo {key}")] if picture.photo else []
    legends = []
    for depth, (level, shown) in enumerate(zip(result.hierarchy.levels, picture.levels, strict=True)):
        name = escape(level.name)
        for kind, uri in (("truth", shown.truth), ("prediction", shown.prediction), ("wrong", shown.wrong)):
            sources.append(_source(kind, depth, uri, f"{_KINDS[kind]}, {name}, {key}"))
        chips = "".join(chip(node.color, node.name) for node in shown.classes[:_MAX_CHIPS])
        more = f'<span class="soft">and {len(shown.classes) - _MAX_CHIPS} more</span>'
        rest = more if len(shown.classes) > _MAX_CHIPS else ""
        hidden = " hidden" if depth else ""
        legends.append(f'<div class="chips" data-of-level="{depth}"{hidden}><b>{name}</b> {chips}{rest}</div>')
    return (
        f'<div class="stage" style="aspect-ratio:{picture.width}/{picture.height}">{halves}'
        '<input class="divider" type="range" autocomplete="off" min="0" max="100" value="50" '
        f'aria-label="line between left and right, {key}">'
        f"</div>{''.join(sources)}{''.join(legends)}"
    )


def _source(kind: str, depth: int, uri: str, words: str) -> str:
    return f'<img class="source" data-kind="{kind}" data-level="{depth}" src="{uri}" alt="{words}">'
