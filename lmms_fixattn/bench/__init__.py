"""What methods cost: time, memory, and the share of the memory-bandwidth limit, beside the unmodified model."""
