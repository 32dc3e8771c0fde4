"""Methods × budgets × seeds: same budget, same recovery, same fine-tuning."""
