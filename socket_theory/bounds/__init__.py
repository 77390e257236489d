"""Theorems as numbers: what each assumes, the value of its bound, and its inverse where one exists.

Pure functions. `delta` is a failure probability, `*_radius` a bound exceeded with probability at most delta,
`*_failure` the probability of exceeding a given bound, `*_tables` and `*_samples` the inverses.
"""

from socket_theory.bounds.concentration import (
    bernstein_count,
    bernstein_failure,
    bernstein_radius,
    collision_half_range,
    hoeffding_count,
    hoeffding_failure,
    hoeffding_radius,
)
from socket_theory.bounds.end_to_end import ErrorTerms, end_to_end
from socket_theory.bounds.finite_tables import (
    bernstein_ratio_radius,
    bernstein_ratio_tables,
    chebyshev_radius,
    chebyshev_tables,
    empirical_bernstein_radius,
    fourth_moment_radius,
    hoeffding_ratio_radius,
    hoeffding_ratio_tables,
    normaliser_failure,
    normaliser_tables,
    paper_condition_tables,
    plug_in_radius,
    plug_in_tables,
    weight_bound,
)
from socket_theory.bounds.ranking import (
    misrank_bernstein,
    misrank_hoeffding,
    misrank_hoeffding_range,
    misrank_tables,
    recall_tables,
)
from socket_theory.bounds.residual_moments import (
    ResidualMoments,
    residual_covariance,
    spare_table_moments,
    table_residuals,
    weight_covariance,
)
from socket_theory.bounds.sampling import SamplingSpread, plain_spread, value_aware_spread
from socket_theory.bounds.temperature import (
    kernel_bias_bound,
    output_bias_bound,
    temperature_for_bias,
    uniform_kernel_bias_bound,
    uniform_output_bias_bound,
)
from socket_theory.bounds.temperature_choice import TemperatureChoice, optimal_temperature, signal_to_noise
from socket_theory.bounds.top_k import captured_mass_for_error, top_k_error_bound

__all__ = [
    "ErrorTerms",
    "ResidualMoments",
    "SamplingSpread",
    "TemperatureChoice",
    "bernstein_count",
    "bernstein_failure",
    "bernstein_radius",
    "bernstein_ratio_radius",
    "bernstein_ratio_tables",
    "captured_mass_for_error",
    "chebyshev_radius",
    "chebyshev_tables",
    "collision_half_range",
    "empirical_bernstein_radius",
    "end_to_end",
    "fourth_moment_radius",
    "hoeffding_count",
    "hoeffding_failure",
    "hoeffding_radius",
    "hoeffding_ratio_radius",
    "hoeffding_ratio_tables",
    "kernel_bias_bound",
    "misrank_bernstein",
    "misrank_hoeffding",
    "misrank_hoeffding_range",
    "misrank_tables",
    "normaliser_failure",
    "normaliser_tables",
    "optimal_temperature",
    "output_bias_bound",
    "paper_condition_tables",
    "plain_spread",
    "plug_in_radius",
    "plug_in_tables",
    "recall_tables",
    "residual_covariance",
    "signal_to_noise",
    "spare_table_moments",
    "table_residuals",
    "temperature_for_bias",
    "top_k_error_bound",
    "uniform_kernel_bias_bound",
    "uniform_output_bias_bound",
    "value_aware_spread",
    "weight_bound",
    "weight_covariance",
]
