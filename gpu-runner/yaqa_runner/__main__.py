"""``python -m yaqa_runner``."""

import sys

from yaqa_runner.cli.main import main

sys.exit(main())
