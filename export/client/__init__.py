"""A client of TF Serving that needs no TensorFlow."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # gRPC reads it when it is imported; its C++ core writes to stderr
