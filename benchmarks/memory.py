"""Peak memory of prepare, eval and predict on 40 and on 400 images: it must not grow with the dataset.

Each stage runs in a process of its own. Run: python benchmarks/memory.py
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from common import machine

from hiposeg_cli.demo.draw import draw_dataset


def peak_mib(arguments: list[str]) -> float:
    """Peak resident memory of one `hiposeg` command, in MiB."""
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'hiposeg_cli', *sys.argv[1:]], capture_output=True, text=True)\n"
        "assert done.returncode == 0, done.stderr\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    return float(done.stdout) / 1024


def main() -> None:
    print(f"peak memory in MiB ({machine()}); this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for count in (40, 400):
            raw, data, run = root / f"raw{count}", root / f"data{count}", root / "run"
            draw_dataset(raw, n_train=4, n_val=count)
            stages = {
                "prepare": peak_mib(["prepare", "pascal-part", str(raw), str(data), "--hierarchy", "demo", "--workers", "1"])
            }
            if not run.exists():
                train = [
                    "--net",
                    "fpn",
                    "--crop",
                    "64",
                    "--batch",
                    "2",
                    "--iterations",
                    "1",
                    "--workers",
                    "0",
                    "--out",
                    str(run),
                ]
                peak_mib(["train", str(data), *train])
            stages["eval"] = peak_mib(["eval", str(run), str(data)])
            stages["predict"] = peak_mib(["predict", str(run), str(raw / "JPEGImages"), "--out", str(root / f"out{count}")])
            print(f"{count:4} images: " + ", ".join(f"{name} {value:.0f}" for name, value in stages.items()))


if __name__ == "__main__":
    main()
