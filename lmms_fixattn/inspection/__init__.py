"""What a method does inside: measured while the model runs, drawn from the numbers alone.

Measuring (torch) gives frozen dataclasses of numpy arrays; the ``draw_*`` beside it makes a matplotlib Figure of those.
"""
