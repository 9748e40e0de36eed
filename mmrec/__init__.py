"""Distributed hyperparameter studies of multimodal recommenders."""
