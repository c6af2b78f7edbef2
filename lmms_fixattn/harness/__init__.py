"""All that knows lmms-eval: the registered model, its requests and results, the tasks, sweeps."""
