"""What `hiposeg predict --save` writes beside the label maps: one format a file, all in `registry.SAVERS`; no torch."""
