"""compressed-tensors folders, which vLLM and transformers load."""
