"""Input validation. Every message says what was given and what to pass instead."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
FLOAT_NAMES = ("float16", "float32", "float64", "bfloat16")
# Squares, norms and group sums of inputs up to here stay finite in float64 and in bfloat16's range.
MAX_MAGNITUDE = 1e32
# Norms from here on keep bfloat16's precision, and their squares float64's, on every backend.
MIN_VALUE_NORM = 1e-32


def require_float(name: str, dtype: Any) -> str:
    """The dtype's name if it is one of float16, bfloat16, float32, float64.

    Raises
    ------
    TypeError
        For any other dtype; quantised caches are told to dequantise.
    """
    given = str(dtype).removeprefix("torch.")
    if given in FLOAT_NAMES:
        return given
    if given.startswith(("float8", "float4", "qint", "quint")) or given in ("int8", "uint8", "int4", "uint4"):
        raise TypeError(f"{name} has dtype {given}: quantised KV is not supported, dequantise to bfloat16.")
    raise TypeError(f"{name} has dtype {given}: pass one of {', '.join(FLOAT_NAMES)}.")


def require_plain(name: str, array: Any) -> None:
    """Raises TypeError for a masked array, whose mask no function here heeds, and for a numpy.matrix."""
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name} is a masked array: pass a plain one, masked entries filled or dropped; "
            "padding of a cache is marked by kv_start and kv_len."
        )
    if isinstance(array, np.matrix):
        raise TypeError(f"{name} is a numpy.matrix, which never has more than two axes: pass numpy.asarray({name}).")


def require_dense(name: str, tensor: Any) -> None:
    """Raises TypeError for a torch tensor that is not one number after the other in memory: sparse, nested, meta."""
    kind, layout = type(tensor), str(tensor.layout).removeprefix("torch.")
    if kind.__module__ not in ("torch", "torch.nn.parameter"):
        raise TypeError(f"{name} is a {kind.__module__}.{kind.__name__}: pass a plain dense torch.Tensor.")
    if tensor.is_nested:
        raise TypeError(f"{name} is a nested tensor: pad it to a dense one, and mark padding by kv_start and kv_len.")
    if layout != "strided":
        raise TypeError(f"{name} is a torch tensor of layout {layout}: pass {name}.to_dense().")
    if tensor.device.type == "meta":
        raise TypeError(f"{name} is a tensor on the meta device, which holds no numbers: pass one with data.")


def read_array(name: str, value: Any) -> NDArray[Any]:
    """`value` as a NumPy array, of dtype object for lists of unequal lengths.

    Raises
    ------
    TypeError
        As `require_plain`, and for what NumPy may not read: CuPy's arrays, torch tensors on a GPU or with a gradient.
    """
    require_plain(name, value)
    try:
        return np.asarray(value)
    except ValueError:
        return np.asarray(None)
    except (TypeError, RuntimeError) as error:
        given = f"{type(value).__module__}.{type(value).__name__}"
        raise TypeError(
            f"{name} of type {given} is no array that NumPy reads: pass one in the CPU's memory, without a gradient."
        ) from error


def require_finite(name: str, array: NDArray[Any]) -> None:
    """Raises ValueError if `array` holds NaN, infinity or a magnitude beyond 1e32; TypeError as `require_plain`."""
    require_plain(name, array)
    with np.errstate(invalid="ignore"):
        largest = float(abs(array).max()) if array.size else 0.0
    if not np.isfinite(largest):
        raise ValueError(f"{name} contains NaN or infinity: pass finite values; mark padding by kv_start and kv_len.")
    if largest > MAX_MAGNITUDE:
        raise ValueError(f"{name} reaches {largest:.3g} in magnitude: rescale it to at most {MAX_MAGNITUDE:g}.")


def require_norms(norms: NDArray[Any], values: NDArray[Any]) -> None:
    """Raises ValueError for a value vector of `values` [..., E] that is not zero but shorter than 1e-32."""
    rows = values[norms < MIN_VALUE_NORM].astype(np.float64)
    if (rows.any(axis=-1) & ((rows * rows).sum(axis=-1) < MIN_VALUE_NORM**2)).any():
        raise ValueError(
            f"values have a vector that is not zero but shorter than {MIN_VALUE_NORM:g}, which weights by |v| do not "
            "tell from zero: rescale the values, pass zeros, or leave |v| out (value_weight or value_aware=False)."
        )


def require_positive(name: str, value: float) -> float:
    """`value` as a float if it is a finite number above zero, else TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise TypeError(f"{name}={value!r} is of type {type(value).__name__}: pass a number.")
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{name}={value!r} was given: pass a finite number above 0.")
    return float(value)


def require_count(name: str, value: int, least: int = 1) -> int:
    """`value` as an int if it is an integer of at least `least`, else TypeError or ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name}={value!r} is of type {type(value).__name__}: pass an integer.")
    if value < least:
        raise ValueError(f"{name}={value} was given: pass an integer of at least {least}.")
    return int(value)


def require_flag(name: str, value: bool) -> bool:
    """`value` as a bool if it is one, else TypeError."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}={value!r} is of type {type(value).__name__}: pass True or False.")
    return bool(value)


def require_head_ratio(num_qo_heads: int, num_kv_heads: int) -> int:
    """Query heads per KV head, or ValueError if the division leaves a remainder."""
    if num_qo_heads == 0 or num_qo_heads % num_kv_heads:
        raise ValueError(
            f"the query has {num_qo_heads} heads and keys have {num_kv_heads}: "
            f"pass a positive multiple of {num_kv_heads} query heads."
        )
    return num_qo_heads // num_kv_heads


def cast_output(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """`array` in `dtype`; ValueError where a finite value would overflow to infinity, or is NaN or infinite itself."""
    if not bool(np.isfinite(array).all()):
        raise ValueError("the output is NaN or infinite: check query, keys and values, also what another owner writes.")
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    if not np.isfinite(result).all():
        raise ValueError(
            f"the output reaches {np.max(np.abs(array)):.3g}, which {result.dtype} cannot hold: pass a wider out_dtype."
        )
    return result


def bfloat16() -> Any:
    """NumPy's bfloat16 from ml_dtypes, or ImportError with the install line."""
    try:
        return np.dtype(import_module("ml_dtypes").bfloat16)
    except ImportError as error:
        raise ImportError("bfloat16 arrays on the CPU need ml_dtypes: pip install ml_dtypes.") from error


def require_numbers(name: str, value: ArrayLike) -> Float:
    """`value` as a float64 array, or TypeError if it is masked or does not hold real numbers."""
    array = read_array(name, value)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name}={value!r} was given: pass a real number or an array of them.")
    return array.astype(np.float64)


def require_angle(name: str, theta: ArrayLike) -> Float:
    """`theta` as float64, or ValueError if an entry lies outside [0, pi]."""
    angle = require_numbers(name, theta)
    if not ((angle >= 0) & (angle <= np.pi)).all():
        raise ValueError(
            f"{name} has an entry outside [0, pi]: pass angles in radians, as attention.angles gives them."
        )
    return angle
