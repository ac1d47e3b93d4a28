"""Weights that the stock toolbox trained, tested with names swapped: the benchmark."""
