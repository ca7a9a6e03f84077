"""The command line: ``yaqa-runner run | quantize | sketch``."""
