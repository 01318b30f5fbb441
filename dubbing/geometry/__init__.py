"""Face geometry: mesh topology, morphable model, fitting, rasterising."""
