"""Analysis of tables of results: paired statistics, figures and reports. Needs no JAX."""
