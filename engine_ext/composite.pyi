from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

MAX_LAYERS: int
MAX_SIDE: int
MAX_THREADS: int

_Plane = NDArray[np.uint8]

class Layer:
    planes: tuple[_Plane, ...] | tuple[int, int, int]
    dest: tuple[int, int, int, int]
    crop: tuple[float, float, float, float] | None
    mirror_x: bool
    mirror_y: bool
    alpha: int
    def __new__(
        cls,
        planes: Sequence[_Plane] | tuple[int, int, int],
        dest: tuple[int, int, int, int],
        crop: tuple[float, float, float, float] | None = None,
        *,
        mirror_x: bool = False,
        mirror_y: bool = False,
        alpha: int = 255,
    ) -> Layer: ...

def composite(
    y: _Plane,
    u: _Plane,
    v: _Plane,
    layers: Iterable[Layer],
    *,
    coverage: tuple[_Plane, _Plane] | None = None,
    threads: int = 1,
) -> None: ...
def simd_level() -> str: ...
def use_simd(on: bool) -> bool: ...
