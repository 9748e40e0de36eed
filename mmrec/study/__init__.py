"""What a study is, how its trials are named, recorded and read back. Knows nothing of Ray."""
