"""People and scripts: the `v2e` command, the prompt, the pytest plugin."""
