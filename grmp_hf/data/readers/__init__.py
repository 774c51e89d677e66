"""Official archives of the published data sets -> rated tables: one small function a label format.

A reader finds its label files, gives a `Row` for each line and lists the pictures; matching the two, and every check,
is the same for all. Names are compared without case, since many label files spell them otherwise than the disk does.
"""

from grmp_hf.data.readers.labels import Labels
from grmp_hf.data.readers.reading import read_benchmark

__all__ = ["Labels", "read_benchmark"]
