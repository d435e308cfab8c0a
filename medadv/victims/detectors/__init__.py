"""Kinds of detectors: how each is looked through, and how one is built by its name."""
