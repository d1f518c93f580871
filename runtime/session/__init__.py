"""How a file is run: providers, threads and settings on a CPU, CUDA graphs on a GPU."""
