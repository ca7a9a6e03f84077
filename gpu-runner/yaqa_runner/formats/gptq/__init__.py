"""GPTQ folders, which vLLM and gptqmodel load."""
