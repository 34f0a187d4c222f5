"""One file per command: parse, one call into the library, print."""
