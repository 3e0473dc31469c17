//! What is served to the cluster: health and metrics.
