"""The command lines: configs as given by the user, one run, and studies of many runs."""
