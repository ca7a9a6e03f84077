"""Kronecker sketches of a model's Fisher information: ``H ≈ H_O ⊗ H_I`` for every linear."""
