"""Figures: KL and its company, measured on models that were loaded from finished files."""
