"""How good scores are and how sure that is: metrics, baselines, plots, tables. Functions on arrays, nothing of ours."""
