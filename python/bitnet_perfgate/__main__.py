"""``python -m bitnet_perfgate``."""

import sys

if sys.argv[1:] == ["worker"]:
    # The measuring process of a launch: nothing of the command line is loaded.
    from bitnet_perfgate.worker import main
else:
    from bitnet_perfgate.cli import main

main()
