"""What a method does inside: measured while the model runs, drawn from the numbers alone.

Measuring (torch) gives frozen dataclasses of numpy arrays; ``draw_*`` takes those and gives a matplotlib Figure.
"""
