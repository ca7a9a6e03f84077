"""What the runner reads and writes: job specs, events, manifests, recipes. Mirrors ``src/protocol/*.ts``."""
