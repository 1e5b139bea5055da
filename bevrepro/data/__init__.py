"""Archives as they are: recognise, index with bounded memory, mount read-only, remember, resolve."""
