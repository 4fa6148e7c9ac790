"""Link steps: messages between agents lost, delayed or changed."""
