"""Networks of every kind of work, one a file with a function ``case``; see :mod:`task_networks.frame`."""
