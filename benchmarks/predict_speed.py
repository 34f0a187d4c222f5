"""What predict costs beyond the network: a folder end to end against bare forward passes, upsampling, and memory.

- a folder of JPEGs through `predict` (reading, resizing, network, upsampling, decoding, PNGs of both levels, record) against
  forward passes over the same batches, which lie in memory already; in turns, so that both meet the same disturbances;
- `Scores.best_ids` against `interpolate` and `argmax(1)` on contiguous scores, (1, 19, 256, 512) to (1024, 2048);
- peak memory of a process over few and over many photos, and over one of 20,000 x 10,000 px through windows.

Run: python benchmarks/predict_speed.py [--device cuda] [--batch 8] [--photos 24] [--many 10000] [--huge 20000x10000]
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import best_of, machine
from PIL import Image
from torch import Tensor, nn

from hiposeg_cli.hierarchy import Hierarchy
from hiposeg_cli.hierarchy_yaml import load_hierarchy
from hiposeg_cli.image_file import read_rgb
from hiposeg_cli.infer.model import Model
from hiposeg_cli.infer.predictor import PredictOptions, Predictor
from hiposeg_cli.infer.sources import find_sources
from hiposeg_cli.infer.windows import Tiling
from hiposeg_cli.learn.batch import Output
from hiposeg_cli.learn.checkpoint import Checkpoint
from hiposeg_cli.learn.device import pick_amp, pick_device
from hiposeg_cli.learn.upsample import Scores
from hiposeg_cli.nets.net import build_net

HIERARCHY = "cityscapes-19-7"
ROUNDS = 5


class ToyNet(nn.Module):
    """Scores that follow the colour of a cell of 4 x 4 px: next to no work and memory of its own."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(3, n_classes, 4, 4)

    def forward(self, image: Tensor) -> Output:
        H, W = image.shape[2:]
        padded = F.pad(image.float() / 64 - 2, (0, -W % 4, 0, -H % 4), mode="replicate")
        logits = self.classifier(padded)
        return Output(logits, logits, (H, W), (padded.shape[2], padded.shape[3]))


def as_model(net: nn.Module, hierarchy: Hierarchy, device: torch.device, folder: Path) -> Model:
    """A model around an untrained network."""
    (folder / "net.safetensors").write_bytes(b"untrained")
    checkpoint = Checkpoint(folder / "net.safetensors", {}, hierarchy, {"size": None})
    amp = pick_amp("auto", device)
    return Model(net.to(device).eval(), checkpoint, device, amp)  # type: ignore[arg-type]


def draw_photos(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Smooth pictures with some noise, as JPEGs of about the size that cameras write."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        small = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        photo = np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (photo + rng.integers(-12, 13, photo.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:05d}.jpg", quality=90)
    return folder


# -- throughput --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turns:
    """Seconds of each round."""

    bare: list[float]
    whole: list[float]

    def __str__(self) -> str:
        shares = [bare / whole for bare, whole in zip(self.bare, self.whole, strict=True)]
        return f"{np.median(shares):.0%} (median; rounds {', '.join(f'{share:.0%}' for share in shares)})"


def compare(model: Model, photos: Path, root: Path, batch: int) -> Turns:
    """Bare forward passes and `predict` in turns."""
    files = sorted(photos.iterdir())
    images = [torch.from_numpy(np.array(read_rgb(path))).permute(2, 0, 1) for path in files]
    batches = [torch.stack(images[start : start + batch]).to(model.device) for start in range(0, len(images), batch)]
    batches = [images.contiguous(memory_format=torch.channels_last) for images in batches]
    turns = Turns([], [])
    for number in range(-1, ROUNDS):  # the first is to warm up
        bare = seconds(lambda: bare_passes(model, batches))
        predictor = Predictor(model, root / f"out{number}", PredictOptions(batch=batch))
        sources = find_sources([photos])
        whole = seconds(lambda p=predictor, s=sources: p.run(s, lambda done, total: None))
        if number >= 0:
            turns.bare.append(bare)
            turns.whole.append(whole)
    return turns


@torch.inference_mode()
def bare_passes(model: Model, batches: list[Tensor]) -> None:
    for images in batches:
        with torch.autocast(model.device.type, dtype=model.amp, enabled=model.amp is not None):
            model.net(images)
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def upsampling(device: torch.device) -> str:
    """The ratio of the plain way to `best_ids`, on random scores and on blocks of one class as networks give them."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 19, 256, 512, generator=generator)
    blocks = torch.randn(1, 19, 16, 32, generator=generator).repeat_interleave(16, 2).repeat_interleave(16, 3) * 4
    lines = []
    for name, logits in (("noise", noise), ("blocks", blocks + noise)):
        logits = logits.to(device)

        def plain(logits: Tensor = logits) -> Tensor:
            full = F.interpolate(logits, size=(1024, 2048), mode="bilinear", align_corners=False)
            return full.argmax(1).to(torch.uint8).cpu()

        scores = Scores(logits[0], (1024, 2048), (1024, 2048), (1024, 2048))
        assert np.array_equal(plain()[0].numpy(), scores.best_ids())
        ours, theirs = best_of(scores.best_ids, ROUNDS), best_of(plain, ROUNDS)
        lines.append(f"{name} {theirs * 1e3:.0f} ms / {ours * 1e3:.0f} ms = {theirs / ours:.1f}x")
    return "; ".join(lines)


# -- memory ------------------------------------------------------------------------------------------------------------


def peak_mib(work: Callable[..., None], *arguments: object) -> float:
    """Peak memory of a new process that does the work."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return float(pool.apply(_measured, (work, arguments)))


def _measured(work: Callable[..., None], arguments: tuple[object, ...]) -> float:
    work(*arguments)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def predict_toy(photos: Path, out: Path, options: PredictOptions) -> None:
    """Predict with the toy network on the CPU."""
    hierarchy = load_hierarchy(HIERARCHY)
    torch.manual_seed(0)
    model = as_model(ToyNet(hierarchy.n_fine), hierarchy, torch.device("cpu"), out.parent)
    result = Predictor(model, out, options).run(find_sources([photos]), lambda done, total: None)
    assert result.done
    assert not result.failures, result.failures[0]


def draw_huge(path: Path, width: int, height: int) -> None:
    tile = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    picture = Image.new("RGB", (width, height))
    for top in range(0, height, 500):
        for left in range(0, width, 500):
            picture.paste(Image.fromarray(np.roll(tile, top + left, 1)), (left, top))
    picture.save(path, quality=90)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=0, help="0 is 1 on a CPU, 8 on a GPU")
    parser.add_argument("--net", default="deeplabv3plus")
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--many", type=int, default=2000)
    parser.add_argument("--huge", default="20000x10000")
    chosen = parser.parse_args()
    device = pick_device(chosen.device)
    batch = chosen.batch or (8 if device.type == "cuda" else 1)
    width, height = map(int, chosen.size.split("x"))
    print(f"{machine()}, torch {torch.__version__} on {device}, {torch.get_num_threads()} threads")
    print(f"best class of upsampled scores, plain way against best_ids: {upsampling(device)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root, hierarchy = Path(folder), load_hierarchy(HIERARCHY)
        photos = draw_photos(root / "photos", chosen.photos, (height, width))
        model = as_model(build_net(chosen.net, "tf_efficientnet_lite0", hierarchy.n_fine), hierarchy, device, root)
        turns = compare(model, photos, root, batch)
        rate = chosen.photos / min(turns.whole)
        name = f"{chosen.net} over tf_efficientnet_lite0, {chosen.photos} photos of {width}x{height}, batch {batch}"
        print(f"{name}: {rate:.1f} photos/s, {turns} of the bare forward's throughput", flush=True)
        few = draw_photos(root / "few", 50, (240, 320))
        many = root / "many"
        many.mkdir()
        for number in range(chosen.many):
            (many / f"{number}.jpg").hardlink_to(few / f"{number % 50:05d}.jpg")
        for photos in (few, many):
            peak = peak_mib(predict_toy, photos, root / f"{photos.name}-out", PredictOptions())
            print(f"peak memory over {len(list(photos.iterdir()))} photos: {peak:.0f} MiB", flush=True)
        huge_width, huge_height = map(int, chosen.huge.split("x"))
        (root / "huge").mkdir()
        draw_huge(root / "huge" / "one.jpg", huge_width, huge_height)
        options = PredictOptions(tiling=Tiling(512, 128), max_pixels=10**9)
        started = time.perf_counter()
        peak = peak_mib(predict_toy, root / "huge", root / "huge-out", options)
        took = time.perf_counter() - started
        print(f"peak memory over one photo of {chosen.huge} through windows of 512: {peak:.0f} MiB, {took:.0f} s")


if __name__ == "__main__":
    main()
