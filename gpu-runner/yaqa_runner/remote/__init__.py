"""Runs on somebody else's machine: the spec comes from a staging repo, and what was made goes back there."""
