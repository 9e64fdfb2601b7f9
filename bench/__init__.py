"""The benchmarks of `make bench` and `v2e bench`: each figure beside the one of QEMU's stub in the same run."""
