"""Named presets of the methods: every option written out, so that no later change of a default can move one.

Sections are those of the specification of HiPoSeg. What the paper does not say is our reading, as the tables of
docs/fidelity.md list it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hiposeg_cli.errors import ConfigError

Options = Mapping[str, Any]
PRESETS: Mapping[str, Mapping[str, Options]] = {
    "hiposeg": {
        "paper": {
            "levels": "all",  # section 2: two banks, one a level
            "lambda_ce": 1.0,  # A9: the weights are in no source; ours to start from, here and below
            "lambda_fh": 0.1,
            "lambda_hh": 0.01,
            "lambda_fl": 0.1,
            "lambda_ll": 0.01,
            "lambda_align": 0.1,
            "lambda_coarse": 0.0,  # section 4: the total has one cross entropy, on the fine level
            "lambda_balanced": 0.0,
            "class_weights": 0.0,  # section 4: every pixel weighs the same
            "tau_coarse": 0.1,  # A10: the temperatures are in no source; ours
            "tau_fine": 0.05,
            "kappa": 0.1,
            "sigma_in": 0.25,  # section 4: sigma1
            "sigma_out": 1.0,  # section 4: sigma2
            "ema_momentum": 0.9,  # section 3, A1: weight of the old prototype
            "ema_reference_count": 0,  # section 3: the same momentum for every class
            "renormalise": True,  # section 3, A4
            "update": "after",  # section 3, A16: construct, coarse, fine, align, update
            "parent_mean": "pixel",  # section 3, A2
            "proto_in_loss": "batch",  # section 4, A5: a detached bank would train nothing
            "align_distance": "squared",  # A3: the only dissimilarity the paper defines is squared
            "align_reduction": "mean",  # section 4, A17
            "align_stop": "none",  # A18
            "repulsion": "logsumexp",  # section 4, A6: the form is in no source; ours
            "fine_repulsion": "all",  # section 4, A7
            "fine_softmax": "all",  # section 4, A8
            "embedding": "decoder",  # section 2, A11: the decoder's own concatenation
            "embed_dim": 256,  # section 2, A11: as in HSSN's code
            "proj_layers": 2,  # section 2, A11: as in HSSN's code
            "pixels_per_class": 200,  # A12
            "pixel_sampling": "random",  # A12
            "sampled_over": "image",  # A12
            "reliable_only": False,  # A13
            "start_coarse": 0.075,  # section 5
            "start_fine": 0.225,  # section 5
            "start_align": 0.375,  # section 5
        }
    }
}


def preset_options(method: str, name: str) -> Options:
    """The options of a method's preset, by name without section.

    Raises: ConfigError when the method has none of this name.
    """
    presets = PRESETS.get(method, {})
    if name not in presets:
        known = ", ".join(f"{preset} of {owner}" for owner, named in PRESETS.items() for preset in named)
        raise ConfigError(f"--preset {name}", f"is no preset of the method {method!r}", f"presets: {known}")
    return presets[name]
