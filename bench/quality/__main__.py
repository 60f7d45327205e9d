"""`python3 bench/quality`: see run_quality."""

import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

from run_quality import main  # noqa: E402

sys.exit(main())
