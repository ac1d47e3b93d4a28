"""Measures the claims of UDP's paper with the real components."""
