# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
"""What kvcc raises: one class for each status of the C interface, all of them `Error`.

The message says what was expected, what came, and which values are legal.
"""


class Error(Exception):
    """Anything that kvcc refuses or that fails in it."""


class InvalidArgument(Error, ValueError):
    """A value of the caller's: model, scheme, target, shape, dtype, number."""


class Unsupported(Error, NotImplementedError):
    """Understood, but there is no kernel for it, such as a layer of MLA."""


class Unavailable(Error, RuntimeError):
    """Something is missing here: NVRTC, a driver, a device, an instruction set, a Python package."""


class Failed(Error, RuntimeError):
    """Compiling, loading or launching failed."""


def expected(what: str, got: object) -> InvalidArgument:
    return InvalidArgument(f"expected {what}, but got {got}")
