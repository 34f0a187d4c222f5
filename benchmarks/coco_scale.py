"""An instances JSON of full COCO size (118k images, 860k annotations, about 450 MB): time and memory to index and to use it.

The photos are hard links to a few drawn ones. One shard of the set is then prepared with two workers, and the largest
memory of the parent and of a worker is read from /proc (Linux only). Run: python benchmarks/coco_scale.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import machine
from PIL import Image

N_IMAGES, N_ANNOTATIONS, SHARDS = 118_000, 860_000, 60
LINKS_PER_FILE = 10_000  # file systems limit the names of one file


def draw(root: Path) -> Path:
    """Write the synthetic dataset; returns its JSON."""
    rng = np.random.default_rng(0)
    folder = root / "train2017"
    folder.mkdir(parents=True)
    for number in range(N_IMAGES):
        path = folder / f"{number:012}.jpg"
        if number % LINKS_PER_FILE:
            os.link(folder / f"{number - number % LINKS_PER_FILE:012}.jpg", path)
        else:
            photo = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).resize((640, 480))
            photo.save(path, quality=90)
    path = root / "annotations" / "instances_train2017.json"
    path.parent.mkdir()
    names = [f"class {number}" for number in range(1, 81)]
    with path.open("w") as file:
        images = [
            {"license": 3, "file_name": f"{n:012}.jpg", "coco_url": f"http://images.cocodataset.org/train2017/{n:012}.jpg",
             "height": 480, "width": 640, "date_captured": "2013-11-14 16:28:13", "id": n}
            for n in range(N_IMAGES)
        ]  # fmt: skip
        file.write('{"info": {"year": 2017}, "images": ' + json.dumps(images) + ', "annotations": [')
        for number in range(N_ANNOTATIONS):
            file.write((", " if number else "") + annotation(number, rng))
        categories = [{"supercategory": "group", "id": k, "name": name} for k, name in enumerate(names, start=1)]
        file.write('], "categories": ' + json.dumps(categories) + "}")
    return path


def annotation(number: int, rng: np.random.Generator) -> str:
    """One object: a star-shaped polygon of about 28 points."""
    angle = np.linspace(0, 2 * np.pi, int(rng.integers(16, 40)), endpoint=False)
    radius = rng.uniform(10, 80) * rng.uniform(0.7, 1, angle.size)
    centre = rng.uniform((90, 90), (550, 390))
    polygon = np.round(np.stack([centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)], 1), 2).ravel()
    box = [float(value) for value in np.round([centre[0] - 80, centre[1] - 80, 160, 160], 2)]
    return json.dumps(
        {"segmentation": [polygon.tolist()], "area": float(np.round(3 * radius.mean() ** 2, 4)), "iscrowd": 0,
         "image_id": int(rng.integers(N_IMAGES)), "bbox": box, "category_id": int(rng.integers(1, 81)), "id": number + 1}
    )  # fmt: skip


def index(path: Path) -> None:
    """Time and peak memory of the index alone, in a process of its own."""
    code = (
        "import resource, sys, time\nfrom pathlib import Path\nfrom hiposeg_cli.formats.coco_json import CocoJson\n"
        "started = time.perf_counter()\ntable = CocoJson(Path(sys.argv[1]))\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "print(f'index: {time.perf_counter() - started:.1f} s, peak {peak:.0f} MiB, {len(table.images)} images')"
    )
    print(subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True).stdout.strip())


def memory_mib(process_id: int) -> dict[str, float]:
    """Private and resident memory of a process now; zeros once it is gone."""
    try:
        lines = Path(f"/proc/{process_id}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {"private": 0, "resident": 0}
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    return {"private": sizes["Private_Clean"] + sizes["Private_Dirty"], "resident": sizes["Rss"]}


def use(root: Path, out: Path) -> None:
    """Prepare one shard with two workers, watching the memory of all processes."""
    classes = "".join(f"    - {{name: class {k}, parent: group}}\n" for k in range(1, 81))
    hierarchy = root / "h.yaml"
    hierarchy.write_text(
        "schema: hiposeg/hierarchy@1\nname: scale\nlevels: [fine, coarse]\nclasses:\n  coarse: [group]\n  fine:\n" + classes
    )
    command = [sys.executable, "-m", "hiposeg_cli", "-q", "prepare", "coco", str(root), str(out), "--hierarchy",
               str(hierarchy), "--workers", "2", "--shard", f"1/{SHARDS}"]  # fmt: skip
    started = time.perf_counter()
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    parent, worker = {"private": 0.0, "resident": 0.0}, {"private": 0.0, "resident": 0.0}
    while run.poll() is None:
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
        for peak, process_ids in ((parent, [run.pid]), (worker, [int(child) for child in children])):
            for process_id in process_ids:
                for kind, value in memory_mib(process_id).items():
                    peak[kind] = max(peak[kind], value)
        time.sleep(0.1)
    assert run.returncode == 0
    print(f"prepare of {N_IMAGES // SHARDS} images with 2 workers: {time.perf_counter() - started:.1f} s with the index")
    print(f"largest parent: {parent['private']:.0f} MiB private, {parent['resident']:.0f} resident")
    print(f"largest worker: {worker['private']:.0f} MiB private, {worker['resident']:.0f} resident")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "raw"
        path = draw(root)
        print(f"{path.stat().st_size / 1e6:.0f} MB, {N_IMAGES} images, {N_ANNOTATIONS} annotations; {machine()}")
        index(path)
        use(root, Path(folder) / "out")


if __name__ == "__main__":
    main()
