"""SANTA and Bernoulli scores: attention from sampled values and from sampled scores."""
