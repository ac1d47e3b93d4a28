"""The claims of UDP's paper, measured with the real components."""
