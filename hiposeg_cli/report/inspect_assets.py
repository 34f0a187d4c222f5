"""Style and script of the HTML pages; both are written into them, so a page needs no other file."""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1c2230; --soft: #667085; --line: #e3e6ec;
  --accent: #3559c7; --heat: 53, 89, 199; --warn: #b54708; --opacity: .65; }
@media (prefers-color-scheme: dark) { :root { --page: #12151c; --card: #1a1f29; --ink: #e6e9f0; --soft: #98a2b3;
  --line: #2c3340; --accent: #8ea8ff; --heat: 112, 146, 255; --warn: #fdb022; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1400px; padding: 28px 24px 60px; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 26px; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { margin: 40px 0 4px; font-size: 19px; } h3 { margin: 0 0 6px; font-size: 15px; }
p { margin: 4px 0 12px; } .soft, small { color: var(--soft); } .warn { color: var(--warn); font-weight: 600; }
nav { margin-top: 8px; display: flex; flex-wrap: wrap; gap: 4px 18px; } a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; overflow-x: auto; }
.tiles, .cards { display: grid; gap: 12px; }
.tiles { grid-template-columns: repeat(auto-fill, minmax(168px, 1fr)); margin-top: 18px; }
.cards { grid-template-columns: repeat(auto-fit, minmax(380px, 1fr)); }
.tile b { display: block; font-size: 22px; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: 12.5px; }
.scroll { max-height: 90vh; overflow: auto; padding-top: 0; } .tree { width: 100%; }
.tree th { position: sticky; top: 0; z-index: 1; background: var(--card); padding: 12px 9px 6px;
  border-bottom: 2px solid var(--line); cursor: pointer; white-space: nowrap; user-select: none; }
.tree th[aria-sort=ascending]::after { content: " \\25b2"; } .tree th[aria-sort=descending]::after { content: " \\25bc"; }
.tree td { padding: 3px 9px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
.tree th:not(:first-child) { text-align: right; }
.tree td:first-child { text-align: left; }
.tree tr.group td { font-weight: 600; } .tree tr.group { cursor: pointer; background: rgba(var(--heat), .05); }
.tree tr.absent td { color: var(--soft); font-weight: 400; } .tree tr[hidden] { display: none; }
.fold { display: inline-block; width: 14px; color: var(--soft); } tr.folded .fold { transform: rotate(-90deg); }
button.fold { padding: 0; border: 0; background: none; font-size: inherit; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; } [hidden] { display: none !important; }
.swatch { display: inline-block; width: 12px; height: 12px; margin-right: 7px; border-radius: 3px; vertical-align: -1px;
  border: 1px solid rgba(128, 128, 128, .5); }
.id { color: var(--soft); font-weight: 400; font-size: 12px; margin-left: 6px; }
.bar { display: inline-block; width: 90px; height: 8px; border-radius: 4px; background: var(--line); overflow: hidden;
  text-align: left; }
.bar i { display: block; height: 100%; border-radius: 4px; background: var(--accent); }
.share { display: inline-block; min-width: 76px; }
.heat { font-size: 12px; } .heat td { width: 22px; min-width: 22px; height: 22px; padding: 0; text-align: center;
  border: 1px solid var(--card); font-size: 10px; } .heat th { padding: 0 6px; font-weight: 500; white-space: nowrap; }
.heat thead th { height: 110px; vertical-align: bottom; padding: 4px 0; }
.heat thead div { writing-mode: vertical-rl; transform: rotate(180deg); margin: 0 auto; }
.heat tbody th { text-align: right; } .heat td:hover { outline: 2px solid var(--ink); }
.chips { display: flex; flex-wrap: wrap; gap: 3px 12px; font-size: 13px; } .chip { white-space: nowrap; }
.sizes td { padding: 2px 12px 2px 0; white-space: nowrap; }
.list { width: 100%; } .list td, .list th { padding: 4px 12px 4px 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; }
button { font: inherit; font-size: 13px; padding: 2px 10px; border: 1px solid var(--line); border-radius: 6px;
  background: var(--card); color: var(--ink); cursor: pointer; }
.sample { margin: 0 0 14px; } .sample figcaption { margin-bottom: 8px; font-weight: 600; overflow-wrap: anywhere; }
.panels { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 12px; }
.panel { position: relative; background-size: 100% 100%; border-radius: 6px; overflow: hidden; }
.panel img { position: absolute; inset: 0; width: 100%; height: 100%; image-rendering: pixelated; opacity: var(--opacity); }
.panels .chips { margin-top: 6px; font-size: 12px; gap: 1px 10px; } .panels .swatch { width: 10px; height: 10px; }
.control { display: flex; gap: 10px; align-items: center; margin: 0 0 12px; }
@media (max-width: 700px) { .panels { grid-template-columns: 1fr; } .cards { grid-template-columns: 1fr; } }
@media print { nav, .control, button { display: none; } .scroll { max-height: none; } }
"""

SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table.tree")) {
  const body = table.tBodies[0], children = new Map(), roots = [];
  for (const row of body.rows) {
    const parent = row.dataset.parent;
    if (!parent) roots.push(row);
    else children.set(parent, [...(children.get(parent) || []), row]);
  }
  const below = row => children.get(row.dataset.id) || [];
  const show = (row, visible) => {
    for (const child of below(row)) {
      child.hidden = !visible;
      show(child, visible && !child.classList.contains("folded"));
    }
  };
  const fold = (row, folded) => {
    row.classList.toggle("folded", folded);
    row.querySelector(".fold").setAttribute("aria-expanded", !folded);
    show(row, !folded);
  };
  const lay = (rows, compare) => {
    for (const row of [...rows].sort(compare)) { body.append(row); lay(below(row), compare); }
  };
  body.addEventListener("click", event => {
    const row = event.target.closest("tr.group");
    if (row) fold(row, !row.classList.contains("folded"));
  });
  const heads = [...table.tHead.rows[0].cells], known = value => value !== "";
  const compare = (a, b, sign) => {
    if (!known(a) || !known(b)) return known(b) - known(a);
    return sign * (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b);
  };
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    head.addEventListener("click", () => {
      const first = column ? "descending" : "ascending", second = column ? "ascending" : "descending";
      const order = head.getAttribute("aria-sort") === first ? second : first;
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1, value = row => row.cells[column].dataset.v;
      lay(roots, (a, b) => compare(value(a), value(b), sign));
    });
    head.addEventListener("keydown", event => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      head.click();
    });
  });
  for (const button of document.querySelectorAll("button[data-fold]")) {
    button.addEventListener("click", () => {
      for (const row of body.rows) if (row.classList.contains("group")) fold(row, button.dataset.fold === "1");
    });
  }
}
const slider = document.getElementById("opacity");
if (slider) slider.addEventListener("input", () => {
  document.documentElement.style.setProperty("--opacity", slider.value / 100);
});
"""
