"""Prepared datasets written in the layouts other tools read: one file each, registered in `registry.EXPORTS`."""
