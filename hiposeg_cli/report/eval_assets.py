"""What the style and the script of an evaluation's page have beyond those of all pages."""

from __future__ import annotations

CSS = """
:root { --at: 50%; --miss: 214, 92, 40; }
.said { margin: 0; padding-left: 18px; } .said li { margin: 3px 0; overflow-wrap: anywhere; }
caption { caption-side: bottom; text-align: left; color: var(--soft); padding-top: 6px; }
.list caption { caption-side: top; padding: 14px 0 4px; font-weight: 600; }
.tree th.words:not(:first-child), .tree td.words { text-align: left; }
.heat td.miss { background: rgba(var(--miss), calc(.6 * var(--s, 0))); }
.heat td.hit { background: rgba(var(--heat), calc(.6 * var(--s, 0))); }
.heat td { min-width: 30px; } .heat.large td { min-width: 15px; width: 15px; height: 17px; font-size: 0; }
.heat.large th { font-size: 11px; } select { font: inherit; padding: 3px 8px; border: 1px solid var(--line);
  border-radius: 6px; background: var(--card); color: var(--ink); max-width: 100%; }
.bins { width: 100%; max-width: 420px; height: auto; } .bins text { fill: var(--soft); font-size: 11px; }
.bins rect { fill: rgba(var(--heat), .55); } .bins .frame { fill: none; stroke: var(--line); }
.bins line { stroke: var(--soft); stroke-dasharray: 4 4; } .bins circle { fill: rgb(var(--miss)); }
.choices { position: sticky; top: 0; z-index: 3; display: flex; flex-wrap: wrap; gap: 6px 20px; align-items: center;
  margin: 0 0 14px; padding: 10px 16px; }
fieldset { border: 0; margin: 0; padding: 0; display: flex; gap: 4px 12px; flex-wrap: wrap; }
legend { float: left; padding: 0 10px 0 0; color: var(--soft); font-size: 13px; } fieldset label { white-space: nowrap; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 12px;
  align-items: start; }
.gallery + h3 { margin-top: 22px; } .gallery .sample { margin: 0; }
.stage { position: relative; overflow: hidden; border-radius: 6px; background: var(--line); }
.half, .half img { position: absolute; inset: 0; width: 100%; height: 100%; }
.half .tint { image-rendering: pixelated; opacity: var(--opacity); }
.half[data-show=wrong] .photo { filter: grayscale(1) brightness(.75); }
.left { clip-path: inset(0 calc(100% - var(--at)) 0 0); } .right { clip-path: inset(0 0 0 var(--at)); }
.word { position: absolute; top: 8px; padding: 1px 8px; border-radius: 5px; background: rgba(0, 0, 0, .6); color: #fff;
  font-size: 12px; pointer-events: none; }
.word.of-left { left: 8px; } .word.of-right { right: 8px; }
.divider { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; background: none; cursor: ew-resize;
  appearance: none; -webkit-appearance: none; touch-action: pan-y; }
.divider::-webkit-slider-runnable-track { height: 100%; }
.divider::-webkit-slider-thumb { -webkit-appearance: none; width: 4px; height: 100%; border: 0; background: #fff;
  box-shadow: 0 0 0 1px rgba(0, 0, 0, .5); }
.divider::-moz-range-thumb { width: 4px; height: 100%; border: 0; border-radius: 0; background: #fff;
  box-shadow: 0 0 0 1px rgba(0, 0, 0, .5); }
.divider:focus-visible { outline: 3px solid var(--accent); outline-offset: -3px; }
@media (max-width: 700px) { .choices { position: static; } }
.source { display: none; max-width: 32%; } .sample .chips { margin-top: 6px; font-size: 12px; gap: 1px 10px; }
"""

NO_SCRIPT = """
<noscript><style>.stage, .choices { display: none; } .source { display: inline-block; }
.matrix[hidden], [data-of-level][hidden] { display: block !important; }</style></noscript>
"""

SCRIPT = """
const matrix = document.getElementById("matrix");
if (matrix) matrix.addEventListener("change", () => {
  for (const card of document.querySelectorAll(".matrix")) card.hidden = card.dataset.matrix !== matrix.value;
});
const chosen = name => document.querySelector(`input[name=${name}]:checked`);
const sourceOf = (figure, kind, level) => figure.querySelector(
  kind === "photo" ? ".source[data-kind=photo]" : `.source[data-kind=${kind}][data-level="${level}"]`);
const put = (image, source) => {
  image.hidden = !source;
  if (source) image.src = source.src;
  image.alt = source ? source.alt : "";
};
const draw = () => {
  const level = chosen("level").value;
  for (const element of document.querySelectorAll("[data-of-level]")) element.hidden = element.dataset.ofLevel !== level;
  for (const figure of document.querySelectorAll(".compare")) for (const side of ["left", "right"]) {
    const half = figure.querySelector(`.${side}`), kind = chosen(side).value;
    half.dataset.show = kind;
    put(half.querySelector(".photo"), sourceOf(figure, "photo", level));
    put(half.querySelector(".tint"), kind === "photo" ? null : sourceOf(figure, kind, level));
    figure.querySelector(`.of-${side}`).textContent = chosen(side).dataset.word;
  }
};
if (document.querySelector(".compare")) {
  for (const input of document.querySelectorAll(".choices input[type=radio]")) input.addEventListener("change", draw);
  draw();
}
for (const divider of document.querySelectorAll(".divider")) divider.addEventListener("input", () => {
  divider.parentElement.style.setProperty("--at", `${divider.value}%`);
});
"""
