"""The study: what UDP changes in trained networks, over seeds and input sizes."""
