"""What N cases ask of a feeder: demand, injections and the voltage of the source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from grid_models.base.errors import FeederError
from grid_models.batched.linear import RealArray
from grid_models.current_injection.model import ComplexArray, FloatArray

_WHERE = "batched power flow"


@dataclass(frozen=True)
class Powers:
    """What the elements draw in N cases, ``basis @ factors``, in kW and kvar.

    Attributes
    ----------
    basis : (2, n_elements, K). Active and reactive power of loads, then of DERs.
    factors : (K, N); None: K is N, and the basis is the powers themselves.
    """

    basis: RealArray
    factors: RealArray | None = None

    def all(self) -> RealArray:
        """Return the powers, (2, n_elements, N)."""
        return self.combined(self.basis)

    def combined(self, of_basis: RealArray) -> RealArray:
        """Return for the N cases what is linear in the powers, given for the basis, (..., K)."""
        return of_basis if self.factors is None else np.asarray(of_basis @ self.factors)


@dataclass(frozen=True)
class Cases:
    """N cases.

    Attributes
    ----------
    load_kva, der_kva : complex (1 or N, n_loads), (1 or N, n_ders)
    load_factor, der_factor : (N,). Times what all loads of a case draw, and its DERs inject.
    source_pu : (N,). Factor on the source's voltage.
    """

    load_kva: ComplexArray
    der_kva: ComplexArray
    load_factor: FloatArray
    der_factor: FloatArray
    source_pu: FloatArray

    @classmethod
    def of(
        cls,
        load_kva: ArrayLike,
        der_kva: ArrayLike,
        factors: tuple[ArrayLike, ArrayLike],
        source_pu: ArrayLike,
        sizes: tuple[int, int],
    ) -> Cases:
        """Return the cases; `sizes` are the numbers of loads and of DERs.

        Raises FeederError: The shapes do not fit together, or a number is not finite.
        """
        load, der = np.atleast_2d(np.asarray(load_kva)), np.atleast_2d(np.asarray(der_kva))
        rows = [np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (*factors, source_pu)]
        n = max(len(x) for x in (load, der, *rows))
        fits = all(
            x.shape[1:] == (k,) and len(x) in (1, n)
            for x, k in zip((load, der), sizes, strict=True)
        )
        if not fits or any(x.shape not in ((1,), (n,)) for x in rows):
            raise FeederError(
                f"load_kva {load.shape}, der_kva {der.shape}, load_factor {rows[0].shape}, "
                f"der_factor {rows[1].shape} and source_pu {rows[2].shape}",
                where=_WHERE,
                expected=f"(N, {sizes[0]}), (N, {sizes[1]}), and three times (N,), with one N",
            )
        if not all(np.isfinite(x).all() for x in (load, der, *rows)):
            raise FeederError("a number is not finite", where=_WHERE, expected="finite numbers")
        return cls(load, der, *(np.broadcast_to(x, (n,)) for x in rows))

    def __len__(self) -> int:
        return len(self.source_pu)

    def powers(self, at: slice = slice(None)) -> Powers:
        """Return what the elements draw in some of the cases."""
        parts = (self.load_kva, self.load_factor[at]), (-self.der_kva, self.der_factor[at])
        if len(self.load_kva) == len(self.der_kva) == 1:
            drawn = np.zeros((self.load_kva.size + self.der_kva.size, 2), dtype=np.complex128)
            drawn[: self.load_kva.size, 0] = self.load_kva[0]
            drawn[self.load_kva.size :, 1] = -self.der_kva[0]
            factors = np.stack([factor for _, factor in parts])
            return Powers(np.stack([drawn.real, drawn.imag]), factors)
        drawn = np.concatenate([(x if len(x) == 1 else x[at]).T * factor for x, factor in parts])
        return Powers(np.stack([drawn.real, drawn.imag]))

    def mean(self) -> Cases:
        """Return the mean of the cases, as one."""
        load, der = (
            (x * factor.mean() if len(x) == 1 else factor[None] @ x / len(self))
            for x, factor in ((self.load_kva, self.load_factor), (self.der_kva, self.der_factor))
        )
        one = np.ones(1)
        return Cases(load, der, one, one, self.source_pu.mean(keepdims=True))
