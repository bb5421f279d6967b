"""eopt: energy-aware compiler for deep neural networks."""
