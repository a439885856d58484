"""Sum blocks of sound with gain matrices and linear gain ramps; contracts stand in mix.pyx."""

from collections.abc import Iterable, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

@final
class Block:
    """One run of samples of one source: where it lands in the output, and its gains from and to over `ramp` samples."""

    def __init__(
        self,
        samples: NDArray[np.float32] | NDArray[np.int16],
        offset: int,
        gains: tuple[Sequence[float], Sequence[float]],
        ramp: int = 0,
    ) -> None: ...

def mix(out: NDArray[np.float32], blocks: Iterable[Block]) -> int:
    """Overwrite out with the clipped sum of the blocks; the number of clipped samples."""

def use_simd(on: bool) -> bool:
    """Take the AVX2 or the plain inner loops; whether AVX2 is in use now. For tests and benches: the bits are equal."""
