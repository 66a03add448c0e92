"""fairseq: its checkpoints and data, opened without running anything inside them, and the plugin that trains."""
