"""Stage 2 around the network: crops, references, correspondence, compositing."""
