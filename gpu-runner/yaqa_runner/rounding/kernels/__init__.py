"""The compiled inner loops: numba on the CPU, Triton on CUDA."""
