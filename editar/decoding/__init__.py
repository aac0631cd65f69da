"""Drawing an image's tokens, one after the other or a few guesses at a time: `decoder.Decoder`.

decoder       blocks of images, pass after pass
drafts        the guesses of a pass, and which tokens are final after it
sampling      guidance, top-k, top-p
forward       a model with its cache: everything before the target in one go, then a few tokens at a time
cache         what is kept of each layer
cuda          compiled layers, and a step as one graph
cpu/          a step of few large operations (step), the matrices laid out for it (linear), the C++ behind them
"""
