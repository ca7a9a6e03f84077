"""One job from its spec to its result: load, calibrate, sketch, round, export, evaluate, choose."""
