"""Every error that onnxcomp raises on purpose.

::

    OnnxcompError            exit code 1
    ├── OptionError          an option or a recipe is wrong (exit code 2)
    │   └── ReachError       a budget is out of a pass's reach
    ├── ModelError           a model cannot be read, written, or is not valid
    ├── DataError            samples cannot be read, or do not fit the model
    ├── ProviderError        an execution provider is not installed here
    ├── PassError            a pass failed; ``__cause__`` holds the reason
    └── FloorError           the result missed the accuracy floor (exit code 3)

Each message is one line, in lower case, without a period: the thing, the value, the remedy.
"""


class OnnxcompError(Exception):
    """The root of the tree."""

    exit_code = 1


class OptionError(OnnxcompError):
    """An option or a recipe is wrong."""

    exit_code = 2


class ReachError(OptionError):
    """A budget is out of a pass's reach.

    Attributes:
        name: The pass.
        nearest: About the value of the option that is within reach.
    """

    def __init__(self, name: str, message: str, nearest: float) -> None:
        super().__init__(f"{name}: {message}")
        self.name, self.nearest = name, nearest


class ModelError(OnnxcompError):
    """A model cannot be read, written, or is not valid."""


class DataError(OnnxcompError):
    """Samples cannot be read, or do not fit the model."""


class ProviderError(OnnxcompError):
    """An execution provider is not installed here."""


class PassError(OnnxcompError):
    """A pass failed; ``__cause__`` holds the reason."""


class FloorError(OnnxcompError):
    """The result missed the accuracy floor that the caller set.

    Attributes:
        compressed: The result that missed it, with its report; of a search that found nothing,
            the report alone.
    """

    exit_code = 3

    def __init__(self, message: str, compressed: object = None) -> None:
        super().__init__(message)
        self.compressed = compressed
