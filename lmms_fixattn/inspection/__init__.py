"""Look inside a model under a method: measure attention, tokens and embeddings, and draw them."""
