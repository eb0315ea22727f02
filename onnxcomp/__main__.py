"""The command line, as ``python -m onnxcomp``."""

from onnxcomp.cli import main

if __name__ == "__main__":
    main()
