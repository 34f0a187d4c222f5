"""hiposeg: hierarchical semantic segmentation from raw annotations to predictions that agree on every level."""

from importlib.metadata import version

__version__ = version("hiposeg-cli")
