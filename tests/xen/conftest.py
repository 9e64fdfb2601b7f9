"""What is below dom0/ runs in a dom0 that `make test-xen` boots, not here."""

collect_ignore = ["dom0"]
