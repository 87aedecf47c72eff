"""What holds for all tests: the default suite draws the same examples each time, however slow the machine is.

    HYPOTHESIS_PROFILE=explore scripts/test tests/property

draws others, and remembers those that failed.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

QUIET = (HealthCheck.too_slow,)  # by the clock: it judges the machine
settings.register_profile("suite", derandomize=True, deadline=None, suppress_health_check=QUIET)
settings.register_profile("explore", deadline=None, suppress_health_check=QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
