from __future__ import annotations

import pytest

from ml_pipeline.scoring.student import t_quantile, z_quantile

# Two-sided 5% points of Student's t as printed in statistical tables.
PRINTED_T = [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)]


@pytest.mark.parametrize(("degrees", "printed"), PRINTED_T)
def test_t_quantiles_are_those_of_printed_tables(degrees: int, printed: float) -> None:
    assert t_quantile(degrees) == pytest.approx(printed, abs=0.0006)


def test_t_quantile_of_many_degrees_is_the_normal_one() -> None:
    assert t_quantile(20_000) == pytest.approx(1.96, abs=0.001)


def test_t_quantile_needs_a_degree_of_freedom() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        t_quantile(0)


def test_the_expansion_for_many_degrees_meets_the_series() -> None:
    # scipy 1.17: t.ppf(0.975, d).
    assert t_quantile(1000) == pytest.approx(1.9623390808264083, abs=1e-9)
    assert t_quantile(1001) == pytest.approx(1.9623367052808798, abs=1e-8)
    assert t_quantile(10**9) == pytest.approx(z_quantile(), abs=1e-8)
