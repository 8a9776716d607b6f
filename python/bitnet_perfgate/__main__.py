"""``python -m bitnet_perfgate``."""

from bitnet_perfgate.cli import main

main()
