"""Factors of positive-definite matrices and products with them, kept as one triangle."""
