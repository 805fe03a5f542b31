"""The version of the package, for modules that the package's own names lead to."""

VERSION = "0.2.0"
