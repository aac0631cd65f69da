"""Drawing an image's tokens, one after the other: `decoder.Decoder`.

decoder       blocks of images, token after token
sampling      guidance, top-k, top-p
forward       a model with its cache: everything before the target in one go, then single tokens
cache         what is kept of each layer
cuda          compiled layers, and a step as one graph
cpu/          a step of few large operations (step), the matrices laid out for it (linear), the C++ behind them
"""
