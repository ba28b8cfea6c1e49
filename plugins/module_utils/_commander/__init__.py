# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One session of Keeper Commander, which sets up in the vault what the rotation of an application needs. PRIVATE.

It runs under Commander's own Python. ``plan`` decides and is pure; ``look`` reads, ``effects`` changes, and ``run``
lets what is read decide what has been done. Keeper's newer SDK, keepersdk 1.2, knows no rotation settings, no scripts
and no Gateway of a PAM configuration: hence Commander.
"""
