"""Answers of a model under a method."""
