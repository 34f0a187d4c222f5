"""Parts of reading and writing taxonomy files; `hierarchy_yaml` is their front door."""
