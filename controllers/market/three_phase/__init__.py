"""The market of unbalanced feeders: powers of ports behind an exact three-phase network."""
