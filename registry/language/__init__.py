"""The language of features: its syntax, its programs, and derived features."""
