"""Traces: what a program asked of the device, recorded once, and looked at or replayed ever after.

trace.py      a trace is a workload
recording.py  what one `pipellm trace record` made: a trace per process and device
file.py       the file it is kept in
tape.py       what the driver wrote down while the program ran
score.py      how often each pattern would have foreseen the next swap-in
summary.py    a recording in words and numbers
picture.py    addresses over time
commands.py   `pipellm trace record|show|replay|stats`
"""

from pipellm.trace.file import load
from pipellm.trace.recording import Recording
from pipellm.trace.trace import Timed, Trace

__all__ = ["Recording", "Timed", "Trace", "load"]
