"""The one place that looks into a forward pass: calls, the graph of layers, replay."""
