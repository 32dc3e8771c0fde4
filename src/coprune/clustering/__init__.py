"""k-medoids of every k, silhouette, knee, embedding and class separability. Knows nothing of networks."""
