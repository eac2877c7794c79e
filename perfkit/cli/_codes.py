"""Exit codes; they are part of the interface, as are those that errors carry (2 and 3).

0 reported, with findings or without      3 nothing could be measured
1 --fail-on is met                        4 something was not seen, and --strict; always so in
2 the command line or a setting is wrong    doctor, and in record of several hosts
                                        130 interrupted (the partial report is printed and saved)
"""

from __future__ import annotations

from typing import Final

THRESHOLD_MET: Final = 1
INCOMPLETE: Final = 4
INTERRUPTED: Final = 130
