"""The label lists of Mapillary Vistas, in the order of `labels` in its config files: an id is a position in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# A line is `prefix: leaf leaf ...`; a leaf with a star is annotated object by object.
_V2_0 = """
animal: bird* ground-animal*
construction--barrier: ambiguous concrete-block curb fence guard-rail other-barrier road-median road-side separator
construction--barrier: temporary* wall
construction--flat: bike-lane crosswalk-plain* curb-cut driveway* parking parking-aisle pedestrian-area rail-track road
construction--flat: road-shoulder service-lane sidewalk traffic-island
construction--structure: bridge building garage tunnel
human--person: individual* person-group
human--rider: bicyclist* motorcyclist* other-rider*
marking--continuous: dashed solid zigzag
marking--discrete: ambiguous
marking--discrete--arrow: left* other* right* split-left-or-straight* split-right-or-straight* straight*
marking--discrete: crosswalk-zebra* give-way-row* give-way-single*
marking--discrete--hatched: chevron diagonal
marking--discrete: other-marking* stop-line* symbol--bicycle* symbol--other* text*
marking-only--continuous: dashed
marking-only--discrete: crosswalk-zebra other-marking text
nature: mountain sand sky snow terrain vegetation water
object: banner* bench* bike-rack* catch-basin* cctv-camera* fire-hydrant* junction-box* mailbox* manhole* parking-meter*
object: phone-booth* pothole
object--sign: advertisement* ambiguous* back* information* other* store*
object: street-light*
object--support: pole* pole-group traffic-sign-frame* utility-pole*
object: traffic-cone*
object--traffic-light: general-single* pedestrians* general-upright* general-horizontal* cyclists* other*
object--traffic-sign: ambiguous* back* direction-back* direction-front* front* information-parking* temporary-back*
object--traffic-sign: temporary-front*
object: trash-can*
object--vehicle: bicycle* boat* bus* car* caravan* motorcycle* on-rails* other-vehicle* trailer* truck* vehicle-group
object--vehicle: wheeled-slow*
object: water-valve*
void: car-mount dynamic ego-vehicle ground static unlabeled
"""
_V1_2 = """
animal: bird* ground-animal*
construction--barrier: curb fence guard-rail other-barrier wall
construction--flat: bike-lane crosswalk-plain* curb-cut parking pedestrian-area rail-track road service-lane sidewalk
construction--structure: bridge building tunnel
human: person*
human--rider: bicyclist* motorcyclist* other-rider*
marking: crosswalk-zebra* general
nature: mountain sand sky snow terrain vegetation water
object: banner* bench* bike-rack* billboard* catch-basin* cctv-camera* fire-hydrant* junction-box* mailbox* manhole*
object: phone-booth* pothole street-light*
object--support: pole* traffic-sign-frame* utility-pole*
object: traffic-light*
object--traffic-sign: back* front*
object: trash-can*
object--vehicle: bicycle* boat* bus* car* caravan* motorcycle* on-rails other-vehicle* trailer* truck* wheeled-slow*
void: car-mount ego-vehicle unlabeled
"""


@dataclass(frozen=True)
class VistasLabel:
    """One label: its dotted name, and whether its objects are numbered."""

    name: str
    instances: bool


def _labels(text: str) -> Iterator[VistasLabel]:
    for line in text.strip().splitlines():
        prefix, _, leaves = line.partition(": ")
        for leaf in leaves.split():
            yield VistasLabel(f"{prefix}--{leaf.rstrip('*')}", leaf.endswith("*"))


LABELS = {"v2.0": tuple(_labels(_V2_0)), "v1.2": tuple(_labels(_V1_2))}
"""Release -> its labels by id."""
