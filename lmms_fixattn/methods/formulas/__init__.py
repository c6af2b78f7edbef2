"""Formulas that methods share: pure functions of tensors."""
