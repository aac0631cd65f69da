"""How MGIE's language model writes, as in apple/ml-mgie's demo.ipynb: greedily, with one beam."""

NEW_TOKENS = 96  # at most
NO_REPEAT = 3  # tokens never stand twice in the same order, prompt and answer together
# <s> ends an answer, as the folder's generation_config.json says. </s> (2) does not, and image tokens after it count.
END = 1
