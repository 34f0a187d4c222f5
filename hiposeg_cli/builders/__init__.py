"""Taxonomies from what a dataset or an annotation tool already knows: one file per kind of source."""
