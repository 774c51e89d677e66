"""Methods compared on data sets under a protocol: the work of ``grmp-iqa benchmark``."""
