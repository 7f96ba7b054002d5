"""Speed and memory, measured side by side in one run. Figures and ratios are printed, nothing is asserted."""
