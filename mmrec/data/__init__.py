"""Datasets: where they come from, how they are split, and what may be done to them."""
