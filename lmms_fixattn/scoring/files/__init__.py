"""Captions, answers and questions from the files that people write."""
