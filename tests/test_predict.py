"""Predicting many photos: what is written does not depend on how, nothing is lost, and one photo's fault stays its own."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from predict_toys import ByColour, ids, noise, results, run, toy_model, write_photos
from torch import Tensor

from hiposeg_cli.errors import ConfigError, DataError, OutputError
from hiposeg_cli.infer import pipeline
from hiposeg_cli.infer.pipeline import Gate
from hiposeg_cli.infer.predictor import PredictOptions, predict
from hiposeg_cli.infer.shares import exit_code_of, share_of
from hiposeg_cli.infer.sources import find_sources
from hiposeg_cli.infer.views import Views
from hiposeg_cli.labelmap import lift
from hiposeg_cli.learn.batch import Output
from hiposeg_cli.learn.decode import Decode
from hiposeg_cli.shard import Shard

SIZES = {"a": (30, 40), "b": (30, 40), "in ner/ü c": (30, 40), "d": (1, 1), "e": (5, 300), "f": (40, 30), "g": (30, 40)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", SIZES)


def lines(out: Path) -> dict[str, dict[str, Any]]:
    found = [json.loads(line) for path in sorted(out.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return {entry["name"]: entry for entry in found}


# -- the ordinary way --------------------------------------------------------------------------------------------------


def test_maps_of_every_level_at_the_size_of_the_photo_and_a_line_for_each(photos: Path, tmp_path: Path) -> None:
    model = toy_model(tmp_path)
    done = run(model, photos, tmp_path / "out")
    assert (done.done, done.skipped, done.failures) == (len(SIZES), 0, ())
    record = lines(tmp_path / "out")
    assert list(record) == sorted(SIZES)
    for name, (height, width) in SIZES.items():
        fine, coarse = (ids(tmp_path / "out" / level / f"{name}.png") for level in ("fine", "coarse"))
        assert np.array_equal(fine, model.segment(np.asarray(Image.open(photos / f"{name}.png"))))
        assert np.array_equal(coarse, lift(fine, model.hierarchy))
        entry = record[name]
        assert (entry["height"], entry["width"], entry["status"]) == (height, width, "done")
        assert len(entry["sha256"]) == 64
        assert 0 < entry["seconds"] < 60


@pytest.mark.parametrize("batch", [1, 3, 4])
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_and_workers_do_not_show(batch: int, workers: int, photos: Path, tmp_path: Path) -> None:
    """Of a network whose sums do not depend on the batch; of others rounding may."""
    net = ByColour(7, stride=4)
    run(toy_model(tmp_path, net), photos, tmp_path / "one", batch=1, workers=1)
    net.batches.clear()
    run(toy_model(tmp_path, net), photos, tmp_path / "other", batch=batch, workers=workers)
    assert results(tmp_path / "other") == results(tmp_path / "one")
    assert sorted(shape[0] for shape in net.batches) == {1: [1] * 7, 3: [1, 1, 1, 1, 3], 4: [1, 1, 1, 4]}[batch]


def test_the_order_of_photos_does_not_show(photos: Path, tmp_path: Path) -> None:
    files = sorted(photos.glob("*.png"))
    run(toy_model(tmp_path), files, tmp_path / "one")
    run(toy_model(tmp_path), files[::-1], tmp_path / "other")
    assert results(tmp_path / "other") == results(tmp_path / "one")


def test_confidence_and_probabilities_are_of_what_is_said(photos: Path, tmp_path: Path) -> None:
    from hiposeg_cli.infer.said import read
    from hiposeg_cli.learn.upsample import Scores

    model = toy_model(tmp_path)
    logits = torch.randn(7, 20, 30, generator=torch.Generator().manual_seed(1))
    needs = frozenset({"confidence", "probabilities"})
    for decode in (Decode(), Decode("sum"), Decode("back-off", 0.5)):
        said = read(Scores.at_size(logits), decode, model.hierarchy, needs)
        p = logits.softmax(0).numpy()
        void = said.maps[0] == 255
        assert void.any() == (decode.rule == "back-off")
        right = np.where(void, p.max(0), np.take_along_axis(p, np.where(void, 0, said.maps[0])[None].astype(int), 0)[0])
        assert said.confidence is not None
        assert said.probabilities is not None
        assert np.allclose(said.confidence, right, rtol=1e-6)
        assert np.array_equal(said.probabilities, p.astype(np.float16))


# -- bad photos --------------------------------------------------------------------------------------------------------


def test_a_bad_photo_is_named_and_the_rest_is_done(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff nonsense")
    (photos / "empty.png").write_bytes(b"")
    whole = (photos / "a.png").read_bytes()
    (photos / "torn.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (40, 40)).save(photos / "a.bmp")  # has the stem of a.png
    done = run(toy_model(tmp_path), photos, tmp_path / "out", batch=4)
    assert done.done == len(SIZES)
    said = sorted(str(error) for error in done.failures)
    for line, word in zip(said, ("a.png", "broken.jpg", "empty.png", "torn.png"), strict=True):
        assert word in line
    failed = {name for name, entry in lines(tmp_path / "out").items() if entry["status"] == "failed" and entry["error"]}
    assert failed == {"broken", "empty", "torn"}
    (photos / "torn.png").write_bytes(whole)
    again = run(toy_model(tmp_path), photos, tmp_path / "out")
    assert (again.done, again.skipped, len(again.failures)) == (1, len(SIZES), 3)
    assert lines(tmp_path / "out")["torn"]["status"] == "done"


def test_modes_of_pictures(tmp_path: Path) -> None:
    folder, rgb = tmp_path / "photos", Image.fromarray(noise(20, 30))
    folder.mkdir()
    for mode in ("L", "P", "RGBA", "LA", "1"):
        rgb.convert(mode).save(folder / f"{mode}.png")
    Image.fromarray(noise(20, 30)[..., 0].astype(np.uint16) * 257).save(folder / "deep.png")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.save(folder / "moving.gif", save_all=True, append_images=[rgb.rotate(180)])
    done = run(toy_model(tmp_path), [folder, folder / "moving.gif"], tmp_path / "out")
    assert (done.done, done.failures) == (8, ())
    for path in (tmp_path / "out").rglob("*.png"):
        assert ids(path).shape == (20, 30)


def test_numbers_without_a_range_are_no_picture(tmp_path: Path) -> None:
    folder, grey = tmp_path / "photos", noise(20, 30)[..., 0]
    folder.mkdir()
    Image.fromarray(grey.astype(np.float32) / 255).save(folder / "float.tif")
    Image.fromarray(grey.astype(np.int32) * 70_000).save(folder / "wide.tif")
    Image.fromarray(grey.astype(np.int32) * 257).save(folder / "deep.tif")
    done = run(toy_model(tmp_path), folder, tmp_path / "out")
    assert done.done == 1
    assert [str(error).partition(" - ")[0].rpartition("/")[2] for error in done.failures] == [
        "float.tif: holds floating-point numbers, whose black and white it does not say",
        "wide.tif: holds grey values beyond 16 bits",
    ]


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1)])
def test_one_pixel_wide_in_every_view(size: tuple[int, int], tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", {"thin": size})
    done = run(toy_model(tmp_path), photos, tmp_path / "out", views=Views((0.5, 1.0), flip=True))
    assert (done.done, done.failures) == (1, ())
    assert ids(tmp_path / "out" / "fine" / "thin.png").shape == size


def test_results_of_two_models_are_never_mixed(tmp_path: Path) -> None:
    """--overwrite replaces those of another model only all at once, and keeps lines of photos not named."""
    photos, out = write_photos(tmp_path / "photos", {"a": (4, 4), "b": (4, 4)}), tmp_path / "out"
    model = toy_model(tmp_path)
    run(model, photos, out)
    run(model, photos / "a.png", out, overwrite=True)
    assert set(lines(out)) == {"a", "b"}
    other = replace(model, amp=torch.bfloat16)
    with pytest.raises(DataError, match="for 1 photos not named now, such as b"):
        run(other, photos / "a.png", out, overwrite=True)
    assert run(model, photos, out).skipped == 2, "nothing was touched"
    assert run(other, photos, out, overwrite=True).done == 2


def test_exif_orientation_is_not_applied_and_that_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in "ab":
        Image.fromarray(noise(20, 30)).save(folder / f"{name}.jpg", exif=exif, quality=95)
    done = run(toy_model(tmp_path), folder, tmp_path / "out")
    assert ids(tmp_path / "out" / "fine" / "a.png").shape == (20, 30)
    (remark,) = done.remarks
    assert "EXIF orientation 6 is not applied" in remark
    assert "(2 photos, such as a.jpg)" in remark


def test_max_pixels_is_the_users(photos: Path, tmp_path: Path) -> None:
    done = run(toy_model(tmp_path), photos, tmp_path / "out", max_pixels=1300)
    assert [Path(error.where).stem for error in done.failures] == ["e"]
    assert "--max-pixels" in str(done.failures[0])


class Hungry(ByColour):
    """Has memory for some pixels only."""

    most = 4000

    def forward(self, image: Tensor) -> Output:
        if image.shape[0] * image.shape[2] * image.shape[3] > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(image)


def test_a_batch_that_does_not_fit_is_done_photo_by_photo(photos: Path, tmp_path: Path) -> None:
    write_photos(photos, {"large": (80, 90)})
    run(toy_model(tmp_path), photos, tmp_path / "one")
    done = run(toy_model(tmp_path, Hungry(7)), photos, tmp_path / "out", batch=4)
    assert done.done == len(SIZES)
    (error,) = done.failures
    for word in ("large.png", "does not fit into memory", "--tile"):
        assert word in str(error)
    files = {name: data for name, data in results(tmp_path / "one").items() if "large" not in name}
    assert results(tmp_path / "out") == files


# -- stopped and continued ---------------------------------------------------------------------------------------------


def test_what_is_there_is_skipped_and_what_changed_is_done_again(photos: Path, tmp_path: Path) -> None:
    model, out = toy_model(tmp_path), tmp_path / "out"
    run(model, photos, out)
    before = results(out)
    os.utime(photos / "a.png", (1, 1))  # touched, not changed
    Image.fromarray(noise(50, 60, 9)).save(photos / "b.png")
    (out / "coarse" / "g.png").unlink()
    done = run(model, photos, out, resume=True)
    assert (done.done, done.skipped) == (2, len(SIZES) - 2)
    assert ids(out / "fine" / "b.png").shape == (50, 60)
    assert {name for name, data in results(out).items() if before[name] != data} == {"fine/b.png", "coarse/b.png"}
    assert run(model, photos, out, overwrite=True).done == len(SIZES)


def test_a_photo_that_is_gone_on_resume_is_named_and_the_rest_is_done(photos: Path, tmp_path: Path) -> None:
    model, out = toy_model(tmp_path), tmp_path / "out"
    run(model, photos, out)
    found = find_sources([photos], out)
    (photos / "a.png").unlink()
    (out / "fine" / "b.png").unlink()
    done = predict(model, found, out, PredictOptions(resume=True))
    assert (done.done, done.skipped) == (1, len(SIZES) - 2)
    (error,) = done.failures
    assert "a.png" in str(error)


def test_what_a_shard_mended_is_done_for_all(photos: Path, tmp_path: Path) -> None:
    """The record of the whole, which comes later by name, still says that it failed."""
    model, out = toy_model(tmp_path), tmp_path / "out"
    whole = (photos / "a.png").read_bytes()
    (photos / "a.png").write_bytes(b"")
    assert len(run(model, photos, out).failures) == 1
    (photos / "a.png").write_bytes(whole)
    parts = [run(model, photos, out, shard=Shard.parse(f"{number}/2")) for number in (1, 2)]
    assert [part.done for part in parts] == [1, 0]
    again = run(model, photos, out, shard=Shard.parse("1/2"))
    assert (again.done, again.failures) == (0, ())
    assert run(model, photos, out).done == 0


def test_results_of_another_precision_are_not_mixed(photos: Path, tmp_path: Path) -> None:
    model = toy_model(tmp_path)
    run(model, photos, tmp_path / "out")
    with pytest.raises(DataError, match="precision"):
        run(replace(model, amp=torch.bfloat16), photos, tmp_path / "out")


def test_resume_needs_something_to_continue(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no predictions that could be continued"):
        run(toy_model(tmp_path), photos, tmp_path / "out", resume=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fine", "coarse", "save"), [("fine", "color", "color"), ("a/b", "a-b", "overlay"), ("overlay_top", "top", "overlay")]
)
def test_levels_and_formats_keep_folders_of_their_own(
    fine: str, coarse: str, save: str, photos: Path, tmp_path: Path
) -> None:  # fmt: skip
    model = toy_model(tmp_path)
    tree = model.hierarchy
    renamed = replace(tree, levels=(replace(tree.fine, name=fine), replace(tree.coarse, name=coarse)))
    model = replace(model, checkpoint=replace(model.checkpoint, hierarchy=renamed))
    with pytest.raises(ConfigError, match=r"would write into the folder of the level .* - rename the level"):
        run(model, photos, tmp_path / "out", save=(save,))
    assert not (tmp_path / "out").exists()


def test_results_of_other_settings_are_not_mixed(photos: Path, tmp_path: Path) -> None:
    from hiposeg_cli.infer.views import Views
    from hiposeg_cli.infer.windows import Tiling

    run(toy_model(tmp_path), photos, tmp_path / "out")
    for options in ({"views": Views(flip=True)}, {"tiling": Tiling(32, 8)}):
        with pytest.raises(DataError, match="other settings"):
            run(toy_model(tmp_path), photos, tmp_path / "out", **options)


@pytest.mark.parametrize("after", [0, 1, 5, 9])
@pytest.mark.parametrize(
    "fault", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()], ids=["full", "ctrl-c"]
)
def test_a_full_disk_or_an_interrupt_stops_and_the_rest_follows(
    after: int, fault: BaseException, photos: Path, tmp_path: Path
) -> None:
    model, out = toy_model(tmp_path), tmp_path / "out"
    run(model, photos, tmp_path / "whole")
    genuine, n_written = os.replace, iter(range(1000))

    def failing(source: Any, target: Any) -> None:
        if next(n_written) >= after:
            raise fault
        genuine(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", failing)
        with pytest.raises((OutputError, KeyboardInterrupt)):
            run(model, photos, out)
    assert not list(out.rglob("*.tmp"))
    assert threading.active_count() < 10
    run(model, photos, out)
    assert results(out) == results(tmp_path / "whole")


def test_killed_and_continued_equals_undisturbed(tmp_path: Path) -> None:
    """SIGKILL in the middle; a torn line and a torn file are left by hand, since chance leaves them too rarely."""
    photos = write_photos(tmp_path / "photos", {f"{number:03d}": (300, 400) for number in range(60)})
    model, out = toy_model(tmp_path), tmp_path / "out"
    run(model, photos, tmp_path / "whole")
    code = "from pathlib import Path; from predict_toys import run, toy_model; import sys\n"
    code += "root = Path(sys.argv[1]); run(toy_model(root), root / 'photos', root / 'out')"
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=Path(__file__).parent)
    record = out / "predictions.jsonl"
    while not (record.exists() and record.read_bytes().count(b"\n") > 5):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    n_done = record.read_bytes().count(b"\n")
    assert n_done < 60
    with record.open("a") as file:
        file.write('{"id": "torn')
    (out / "fine" / f".059.png.{process.pid}.tmp").write_bytes(b"half")
    done = run(model, photos, out, resume=True)
    assert done.skipped >= n_done - 1
    assert done.done + done.skipped == 60
    assert results(out) == results(tmp_path / "whole")
    assert [json.loads(line)["name"] for line in record.read_text().splitlines()] == [f"{n:03d}" for n in range(60)]


# -- parts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 9])
def test_shards_together_equal_the_whole(count: int, photos: Path, tmp_path: Path) -> None:
    model = toy_model(tmp_path)
    run(model, photos, tmp_path / "whole")
    n_done = [run(model, photos, tmp_path / "out", shard=Shard(number, count)).done for number in range(1, count + 1)]
    assert sum(n_done) == len(SIZES)
    assert max(n_done) - min(n_done) <= 1
    assert results(tmp_path / "out") == results(tmp_path / "whole")
    untimed = [{name: {**entry, "seconds": 0} for name, entry in lines(tmp_path / d).items()} for d in ("out", "whole")]
    assert untimed[0] == untimed[1]
    assert run(model, photos, tmp_path / "out").skipped == len(SIZES)  # one more process sees what all of them did


def test_processes_of_a_launch_share_the_photos() -> None:
    torchrun = {"WORLD_SIZE": "3", "LOCAL_WORLD_SIZE": "3", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    slurm = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "3", "SLURM_JOB_NODELIST": "n[1-3]"}
    photos = list(range(20))
    for shard in (Shard(), Shard(2, 4)):
        for found in (
            [share_of(shard, "cpu", {**torchrun, "RANK": str(r), "LOCAL_RANK": str(r)}) for r in range(3)],
            [share_of(shard, "cpu", {**slurm, "SLURM_PROCID": str(r), "SLURM_LOCALID": "0"}) for r in range(3)],
        ):
            assert {share.device for share in found} == {"cpu"}
            assert sorted(photo for share in found for photo in share.shard.of(photos)) == shard.of(photos)
    assert share_of(Shard(2, 4), "auto", {}).shard == Shard(2, 4)
    assert [exit_code_of(n, {}) for n in (0, 3)] == [0, 1]
    assert exit_code_of(3, {"TORCHELASTIC_RUN_ID": "none"}) == 0


def test_a_launch_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="several processes"):
        share_of(Shard(), "cpu", {"WORLD_SIZE": "2"})


# -- bounded memory ----------------------------------------------------------------------------------------------------


def test_the_gate_lets_in_by_turn_and_by_pixels() -> None:
    gate, inside = Gate(100), []
    sizes = [60, 30, 500, 10, 10]

    def enter(ticket: int) -> None:
        gate.enter(ticket, sizes[ticket])
        inside.append(ticket)

    threads = [threading.Thread(target=enter, args=(ticket,)) for ticket in (4, 3, 2, 1, 0)]
    for thread in threads:
        thread.start()
    steps = []
    for ticket, size in enumerate(sizes):
        while len(inside) <= ticket:
            time.sleep(0.001)
        time.sleep(0.02)
        steps.append(list(inside))
        gate.leave(size)
    assert steps == [[0, 1], [0, 1], [0, 1, 2], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    closed = Gate(1)
    closed.close()
    with pytest.raises(CancelledError):
        closed.enter(0, 1)


def test_few_pixels_are_in_flight(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos of different sizes never fill a batch; they go all the same, and nothing waits for ever."""
    write_photos(photos, {f"x{number}": (20 + number, 20) for number in range(40)})
    monkeypatch.setattr(pipeline, "MOST_PX", 1500)
    done = run(toy_model(tmp_path), photos, tmp_path / "out", batch=8)
    assert done.done == len(SIZES) + 40
