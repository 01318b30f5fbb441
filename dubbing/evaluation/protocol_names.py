"""Names of the protocols of an evaluation."""

SELF, SAME, CROSS, SILENCE, LONG = "self-dub", "same-speaker", "cross-speaker", "silence", "long"
PROTOCOLS = (SELF, SAME, CROSS, SILENCE, LONG)
WITH_TRUTH = (SELF, SAME)
