"""Ray: the only layer that knows it. A new Ray release touches files of this folder alone."""
