"""The plan of a training run: worked out by hand for the sample sets' shapes, valid and monotone for any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiposeg_cli.config import Layer
from hiposeg_cli.errors import DataError
from hiposeg_cli.hierarchy_yaml import parse_hierarchy
from hiposeg_cli.plan import Device, Plan, fingerprint, plan
from hiposeg_cli.run_config import resolve_config
from hiposeg_cli.store import Dataset, Row

HIERARCHY = parse_hierarchy(
    """
schema: hiposeg/hierarchy@1
name: cups
levels: [fine, coarse]
classes:
  coarse: [{id: 0, name: ground, kind: background}, {id: 1, name: cup}]
  fine:
    - {id: 0, name: ground, parent: ground, kind: background}
    - {id: 1, name: body, parent: cup}
    - {id: 2, name: handle, parent: cup}
""",
    "cups.yaml",
)
GIB = 1 << 30


def row(number: int, width: int, height: int, counts: dict[int, int] | None = None) -> Row:
    fine = {0: width * height} if counts is None else counts
    return Row(
        key=f"{number:06}", split="train", image_path="", image_sha256="", width=width, height=height, fine_sha256="",
        coarse_sha256="", fine_counts={str(class_id): pixels for class_id, pixels in fine.items()}, coarse_counts={},
        ignore_px=0, coarse_only_px=0, n_objects=0, overlap_px=0, part_overlap_px=0, uncovered_px=0, source="", warnings=[],
    )  # fmt: skip


def dataset_of(*rows: Row) -> Dataset:
    """A dataset without files: planning may open none."""
    return Dataset(Path("nowhere"), HIERARCHY, Path("nowhere/images"), {"train": rows}, True)


def uniform(images: int, width: int, height: int, share: float = 1.0, region: int | None = None) -> Dataset:
    """Photos of one size full of `ground`; `handle` covers `region` px in a `share` of them."""
    region = width * height if region is None else region
    shown = max(1, round(share * images))
    ground = width * height
    return dataset_of(*(row(n, width, height, {0: ground} | ({2: region} if n < shown else {})) for n in range(images)))


TRAINED = {"net.backbone": "tf_efficientnet_lite0", "optim.optimizer": "adamw"}


def planned(dataset: Dataset, device: Device = "cpu", cores: int = 2, gpu_bytes: int | None = None) -> Plan:
    return plan(dataset, device=device, cores=cores, gpu_bytes=gpu_bytes, chosen=TRAINED)


def shown(made: Plan, images: int) -> int:
    """Photos of a run, as near as whole epochs or steps allow."""
    if "optim.iterations" in made.settings:
        return int(made.settings["optim.iterations"]) * int(made.settings["data.batch"])
    return int(made.settings["optim.epochs"]) * images


# -- by hand -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "width", "height", "size", "crop", "epochs", "val_every"),
    [
        # 12,000 photos at least; 20 minutes at 60 ms * (320 / 256)^2 = 93.75 ms are 12,800 of them.
        (400, 512, 512, None, [320, 320], 30, 1),  # car parts: 12,000 / 400
        (367, 480, 360, None, [320, 320], 32, 1),  # CamVid: 12,000 / 367 = 32.7
        (804, 550, 825, 512, [320, 320], 15, 1),  # CCP: 341x512 px after --size; 20 passes are 16,080 > 12,800; / 804
        (240, 300, 300, None, [320, 320], 50, 2),  # white blood cells: 300 -> 320
        (240, 120, 120, None, [128, 128], 50, 2),  # the same as distributed at 120 px
    ],
)
def test_sample_sets_on_a_cpu(
    images: int, width: int, height: int, size: int | None, crop: list[int], epochs: int, val_every: int
) -> None:
    assert planned(uniform(images, width, height)).settings == {
        "data.size": size, "data.crop": crop, "data.batch": 8, "data.workers": 1, "data.scale": [0.75, 1.5],
        "optim.lr": 0.002, "optim.epochs": epochs, "loop.val_every": val_every,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("images", "width", "height", "crop", "epochs"),
    [
        (400, 512, 512, [512, 512], 800),  # 20,000 steps of 16 = 320,000 photos / 400
        (367, 480, 360, [384, 480], 871),  # 320,000 / 367 = 871.9
        (804, 550, 825, [512, 512], 398),  # 320,000 / 804 = 398.01
        (240, 120, 120, [128, 128], 1000),  # no more than 1,000 passes
        (118_287 // 10, 640, 427, [448, 512], 27),  # 320,000 / 11,828 = 27.05; 20 passes are fewer
        (20_210, 683, 512, [512, 512], 20),  # 20 passes = 404,200 photos, more than 320,000
    ],
)
def test_sample_sets_on_a_large_gpu(images: int, width: int, height: int, crop: list[int], epochs: int) -> None:
    made = planned(uniform(images, width, height), "cuda", cores=16, gpu_bytes=80 * GIB).settings
    expected = {"data.size": None, "data.crop": crop, "data.batch": 16, "data.workers": 8, "data.scale": [0.5, 2.0]}
    assert {key: made[key] for key in expected} == expected
    assert (made["optim.epochs"], made["loop.val_every"]) == (epochs, max(1, epochs // 20))


@pytest.mark.parametrize("chosen", [{"net.backbone": "resnet18"}, {"optim.optimizer": "sgd"}, {"optim.lr": 0.1}])
def test_a_learning_rate_is_planned_only_where_one_was_measured(chosen: dict[str, Any]) -> None:
    data = uniform(400, 64, 64)
    assert "optim.lr" not in with_chosen(data, chosen)
    assert with_chosen(data, {})["optim.lr"] == 0.002


def test_little_memory_makes_first_the_batch_and_then_the_crop_smaller() -> None:
    """A step takes 4000 bytes a pixel of 80 % of the memory: 512 x 512 x 4000 = 1.05e9 bytes an image."""
    data = uniform(1000, 800, 800)
    sides = {gib: planned(data, "cuda", gpu_bytes=gib * GIB).settings for gib in (2, 6, 12, 24)}
    assert [sides[gib]["data.batch"] for gib in (24, 12, 6, 2)] == [16, 8, 4, 4]  # 19.7, 9.8, 4.9 images fit
    assert [sides[gib]["data.crop"][0] for gib in (24, 12, 6, 2)] == [512, 512, 512, 320]  # sqrt(429,496 / 4) = 327
    assert planned(data, "cuda").settings == planned(data, "cuda", gpu_bytes=8 * GIB).settings


def test_a_rare_class_makes_the_run_longer_until_the_machine_is_full() -> None:
    """1,000 sightings of a class in 2 of 1,000 images need 500,000 photos; in 1 of 2,000, more than 80,000 steps of 16."""
    common, rare = (planned(uniform(1000, 64, 64, share), "cuda", gpu_bytes=GIB * 80) for share in (1.0, 0.002))
    assert (common.settings["optim.epochs"], rare.settings["optim.epochs"]) == (320, 500)
    assert "handle (in 0.2 % of the images)" in rare.reasons["optim.epochs"]
    rarest = planned(uniform(2000, 64, 64, 1 / 2000), "cuda", gpu_bytes=GIB * 80)
    assert rarest.settings["optim.epochs"] == 80_000 * 16 // 2000


def test_small_regions_are_not_zoomed_out_of_sight() -> None:
    """15 x 15 px at half size are 7.5 px across, less than 8; 16 x 16 are enough."""
    small, large = (planned(uniform(1000, 512, 512, region=side**2), "cuda", gpu_bytes=80 * GIB) for side in (15, 16))
    assert (small.settings["data.scale"], large.settings["data.scale"]) == ([0.75, 2.0], [0.5, 2.0])
    assert "handle" in small.reasons["data.scale"]


@pytest.mark.parametrize(("handle_px", "lambda_balanced"), [(10, None), (52, None), (53, 0.0), (1000, 0.0)])
def test_classes_are_not_balanced_where_none_is_rare(handle_px: int, lambda_balanced: float | None) -> None:
    """Beside 1000 px of ground a tenth of the average is 52.6 px with 52 px of handle, and 52.65 px with 53."""
    data = uniform(10, 50, 20, region=handle_px)
    assert with_chosen(data, {"method.name": "hiposeg"}).get("method.lambda_balanced") == lambda_balanced
    for chosen in ({"method.name": "flat"}, {"method.name": "hiposeg", "method.lambda_balanced": 0.1}):
        assert "method.lambda_balanced" not in with_chosen(data, chosen)


def test_fingerprint_by_hand() -> None:
    rows = [
        row(0, 100, 50, {0: 4000, 1: 900, 2: 0}),
        row(1, 200, 80, {0: 9000, 1: 400}),
        row(2, 40, 300, {0: 100, 2: 25}),
    ]
    seen = fingerprint(rows, HIERARCHY)
    assert (seen.images, seen.width, seen.height, seen.long_px, seen.longest_px) == (3, 100, 80, 200, 300)
    assert seen.rarest == ("handle", pytest.approx(1 / 3))  # its zero pixels in the first photo are no sighting
    assert seen.scarcest == ("handle", pytest.approx(25 / ((13_100 + 1300 + 25) / 3)))
    assert seen.smallest == ("handle", 5.0)
    assert fingerprint(rows[:2], HIERARCHY).scarcest == ("body", pytest.approx(1300 / (14_300 / 2)))  # no handle is seen


def test_more_photos_than_fit_into_the_time_are_counted_in_steps() -> None:
    """12,800 photos in 20 minutes; 20,000 are too many for one pass: 12,800 / 8 steps."""
    made = planned(uniform(20_000, 400, 400))
    assert made.settings["optim.iterations"] == 1600
    assert not {"optim.epochs", "loop.val_every"} & made.settings.keys()
    assert "less than one pass" in made.reasons["optim.iterations"]


# -- degenerate datasets -----------------------------------------------------------------------------------------------


def test_one_image() -> None:
    made = planned(uniform(1, 640, 480)).settings
    assert (made["data.batch"], made["optim.epochs"]) == (4, 1000)
    assert (made["data.size"], made["data.crop"]) == (512, [320, 320])


def test_a_panorama_is_brought_down_and_its_crop_is_no_higher_than_needed() -> None:
    made = planned(uniform(3, 30_000, 3_000)).settings
    assert (made["data.size"], made["data.crop"]) == (512, [64, 320])  # 51 x 512 px
    gpu = planned(uniform(3, 30_000, 3_000), "cuda", gpu_bytes=80 * GIB).settings
    assert (gpu["data.size"], gpu["data.crop"]) == (2048, [224, 512])  # 204.8 px high


def test_one_panorama_among_small_photos_does_not_enlarge_the_others() -> None:
    made = planned(dataset_of(*(row(n, 200, 150) for n in range(50)), row(50, 30_000, 3_000))).settings
    assert (made["data.size"], made["data.crop"]) == (200, [160, 224])


def test_photos_of_one_pixel_height_and_without_labels() -> None:
    made = planned(dataset_of(*(row(n, 400, 1, {}) for n in range(10)))).settings
    assert made["data.crop"] == [32, 320]
    assert planned(dataset_of(row(0, 1, 1, {}))).settings["data.crop"] == [32, 32]


def test_a_dataset_without_training_images_is_refused() -> None:
    with pytest.raises(DataError, match="'train' is empty"):
        planned(dataset_of())
    with pytest.raises(DataError, match="has no split 'train'"):
        planned(Dataset(Path("nowhere"), HIERARCHY, Path("nowhere"), {"val": (row(0, 9, 9),)}, True))


# -- the layer ---------------------------------------------------------------------------------------------------------


def with_chosen(dataset: Dataset, chosen: dict[str, Any]) -> dict[str, Any]:
    return dict(plan(dataset, device="cpu", cores=2, gpu_bytes=None, chosen=TRAINED | chosen).settings)


def test_what_a_user_chose_is_not_planned_and_the_rest_fits_it() -> None:
    data = uniform(400, 512, 512)
    sized = with_chosen(data, {"data.size": 128})
    assert "data.size" not in sized
    assert (sized["data.crop"], sized["optim.epochs"]) == ([128, 128], 30)
    cropped = with_chosen(data, {"data.crop": (512, 512)})
    assert "data.crop" not in cropped
    assert cropped["optim.epochs"] == 5000 // 400  # 20 minutes at 240 ms
    assert with_chosen(uniform(20_000, 400, 400), {"data.batch": 2})["optim.iterations"] == 6400  # 12,800 / 2
    assert with_chosen(data, {"optim.momentum": 0.1}) == dict(planned(data).settings)


@pytest.mark.parametrize("key", ["optim.epochs", "optim.iterations"])
def test_a_length_that_was_asked_for_is_never_overridden(key: str) -> None:
    """Steps override epochs, so planned steps beside a user's epochs would be obeyed instead."""
    for data in (uniform(400, 512, 512), uniform(20_000, 400, 400)):
        left = with_chosen(data, {key: 7})
        assert not {"optim.epochs", "optim.iterations", "loop.val_every"} & left.keys()
        assert "data.batch" in left
    assert with_chosen(uniform(400, 512, 512), {"loop.val_every": 3})["optim.epochs"] == 30


@pytest.mark.parametrize(
    ("layers", "epochs", "iterations"),
    [
        ([{"optim.iterations": 9}, {"optim.epochs": 2}], 2, 0), ([{"optim.epochs": 2}, {"optim.iterations": 9}], 2, 9),
        ([{"optim.iterations": 9, "optim.epochs": 2}, {"optim.lr": 1.0}], 2, 9),
    ],
)  # fmt: skip
def test_of_two_lengths_the_later_layer_s_wins(layers: list[dict[str, Any]], epochs: int, iterations: int) -> None:
    """Or `--epochs` would be ignored beside iterations of a file or of the environment."""
    config = resolve_config([Layer(f"--layer-{number}", values) for number, values in enumerate(layers)])
    assert (config.optim.epochs, config.optim.iterations) == (epochs, iterations)


def test_the_layer_names_its_origin() -> None:
    made = planned(uniform(400, 512, 512))
    assert made.layer() == Layer("plan", made.settings, made.reasons)


def test_every_setting_has_its_reason_on_one_line() -> None:
    made = planned(uniform(804, 550, 825), "cuda", gpu_bytes=8 * GIB)
    assert made.settings.keys() == made.reasons.keys()
    for line, (key, value) in zip(made.lines(), made.settings.items(), strict=True):
        assert line.startswith(f"{key} = {value} (")
        assert "\n" not in line


# -- for any dataset ---------------------------------------------------------------------------------------------------

IMAGES = st.integers(1, 300)
SIDE = st.integers(1, 5000)
SHARE = st.floats(0.001, 1)
DEVICE: st.SearchStrategy[Any] = st.sampled_from(["cpu", "cuda", "mps"])
MEMORY = st.none() | st.integers(1, 200).map(lambda gib: gib * GIB)


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.tuples(SIDE, SIDE), min_size=1, max_size=40), device=DEVICE, memory=MEMORY, cores=st.integers(1, 256)
)
def test_plans_are_valid_settings(sizes: list[tuple[int, int]], device: Device, memory: int | None, cores: int) -> None:
    from hiposeg_cli.run_config import resolve_config

    rows = [row(number, *size, {number % 3: 1 + number}) for number, size in enumerate(sizes)]
    made = planned(dataset_of(*rows), device, cores, memory)
    config = resolve_config([Layer("--test", made.layer().values)])
    assert list(config.data.crop) == made.settings["data.crop"]
    assert config.data.batch >= 4
    assert 0 <= config.data.workers < cores
    longest = max(max(size) for size in sizes)
    assert config.data.size is None or 32 <= config.data.size <= max(32, longest)
    for axis, side in enumerate(config.data.crop):
        largest = max(size[1 - axis] for size in sizes)
        scaled = largest if config.data.size is None else largest * max(1, config.data.size / min(max(s) for s in sizes))
        assert 32 <= side < max(scaled, 1) + 32


@settings(max_examples=100, deadline=None)
@given(width=SIDE, height=SIDE, factor=st.integers(1, 8), device=DEVICE, memory=MEMORY)
def test_larger_photos_never_get_a_smaller_crop(
    width: int, height: int, factor: int, device: Device, memory: int | None
) -> None:
    sizes = ((width, height), (width * factor, height * factor))
    crops = [planned(uniform(5, *size), device, 2, memory).settings["data.crop"] for size in sizes]
    assert all(small <= large for small, large in zip(*crops, strict=True))


@settings(max_examples=100, deadline=None)
@given(images=IMAGES, more=IMAGES, side=st.integers(16, 1500), device=DEVICE, memory=MEMORY)
def test_more_images_never_mean_a_smaller_batch_or_a_shorter_run(
    images: int, more: int, side: int, device: Device, memory: int | None
) -> None:
    small, large = (planned(uniform(n, side, side), device, 2, memory) for n in (images, images + more))
    assert small.settings["data.batch"] <= large.settings["data.batch"]
    assert shown(small, images) <= shown(large, images + more) + images + more  # whole epochs round down
    assert small.settings["optim.epochs"] >= large.settings["optim.epochs"]


@settings(max_examples=100, deadline=None)
@given(images=IMAGES, share=SHARE, rarer=SHARE, device=DEVICE)
def test_a_rarer_class_never_shortens_the_run(images: int, share: float, rarer: float, device: Device) -> None:
    common, rare = sorted((share, rarer), reverse=True)
    lengths = [shown(planned(uniform(images, 100, 100, part), device), images) for part in (common, rare)]
    assert lengths[0] <= lengths[1]


@settings(max_examples=100, deadline=None)
@given(images=IMAGES, side=SIDE, memory=st.integers(1, 100), more=st.integers(0, 100))
def test_more_memory_never_means_a_smaller_batch_or_crop(images: int, side: int, memory: int, more: int) -> None:
    data = uniform(images, side, side)
    small, large = (planned(data, "cuda", 2, gib * GIB).settings for gib in (memory, memory + more))
    assert small["data.batch"] <= large["data.batch"]
    assert small["data.crop"] <= large["data.crop"]


@settings(max_examples=100, deadline=None)
@given(images=IMAGES, width=SIDE, height=SIDE)
def test_a_run_on_a_cpu_ends_in_tens_of_minutes(images: int, width: int, height: int) -> None:
    made = planned(uniform(images, width, height))
    crop_height, crop_width = made.settings["data.crop"]
    photos = shown(made, max(images, 4))  # a batch of four repeats fewer images
    assert photos * crop_height * crop_width * 0.060 / 256**2 <= 30 * 60
