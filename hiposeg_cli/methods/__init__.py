"""Learning methods: one file a method; each owns its losses, heads and prototypes, never the network."""
