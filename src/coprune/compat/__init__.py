"""Other libraries' internals, each in one module with the versions it knows."""
