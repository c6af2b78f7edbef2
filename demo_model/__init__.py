"""How the packaged demo model and its scenes were made; not part of the wheel."""
