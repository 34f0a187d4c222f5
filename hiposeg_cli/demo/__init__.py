"""The demonstration: a small drawn dataset that needs no download."""
