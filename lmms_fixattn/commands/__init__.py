"""What `lmms-fixattn` can do: a file a command, each with `add`, which describes it, and what it runs."""
