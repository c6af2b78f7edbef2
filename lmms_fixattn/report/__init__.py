"""Compare runs: read them, set figures against a baseline with intervals, write tables, plots and a page."""
