"""Prints the events of a file of src/runs/tensorboard.ts as TensorBoard reads them.

    python tools/golden/readEvents.py runs/first/events.out.tfevents.…

The bytes in src/runs/tensorboard.test.ts were checked so, with tensorboard 2.21.
"""

import sys

from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

for event in LegacyEventFileLoader(sys.argv[1]).Load():
    print(event)
