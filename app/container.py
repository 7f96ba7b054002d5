"""The image's entry point: `python -m app`, stopped by SIGTERM from the first instant.

The kernel keeps a signal from a container's first process as long as that has no handler for it. Importing
the service takes a good third of a second, and a stop in that time would last until the engine loses patience
and kills the process.
"""

import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    from app.__main__ import main

    sys.exit(main())
