"""What a selection method is, and every one of them: one package or file each, one line in the registry."""
