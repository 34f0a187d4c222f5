"""Time `hiposeg --help` from a cold process. Run: python benchmarks/help_time.py"""

from __future__ import annotations

import subprocess
import sys

from common import best_of, machine


def main() -> None:
    command = [sys.executable, "-m", "hiposeg_cli", "--help"]
    seconds = best_of(lambda: subprocess.run(command, check=True, capture_output=True), repeats=10)
    print(f"hiposeg --help: {seconds:.2f} s, best of 10 ({machine()}); limit 0.4 s")


if __name__ == "__main__":
    main()
