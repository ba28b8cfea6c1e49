# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lets the fleet's counters run ``BENCH_SCALE`` times as fast as the services count. For the benchmark of growth alone,
whose sandbox counts as fast: what is measured then is what the client needs, and not the services' silences."""

from __future__ import annotations

import os

from ansible_collections.keeperpam.azure.plugins.module_utils._core.fleet import pacing

for _name in ("_SILENCE", "BOOKED", "_CALLS_IN", "_WRITES_IN", "_PERSONAL_IN"):
    setattr(pacing, _name, getattr(pacing, _name) / float(os.environ["BENCH_SCALE"]))
