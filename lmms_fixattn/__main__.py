"""`python -m lmms_fixattn`: the command line."""

import sys

from lmms_fixattn.cli import main

sys.exit(main())
