"""The version of mlpx, read by the packaging too."""

VERSION = "0.1.0"
