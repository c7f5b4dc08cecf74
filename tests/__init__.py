"""The suite: `unit` by the folder that is tested, `journeys` of users, and what needs real engines or other clients.

`fakes` are engines that fail on demand, `rigs` are parts of the gateway set up for a test, `recorded` is what real
programs sent.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent
RECORDED = Path(__file__).parent / "recorded"
