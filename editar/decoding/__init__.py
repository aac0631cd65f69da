"""Drawing an image's tokens, one after the other: `decoder.Decoder`.

decoder       blocks of images, token after token
sampling      guidance, top-k, top-p
cached        a model with its cache: everything before the target in one go, then single tokens
cache         what is kept of each layer
graphs        CUDA: compiled layers, and a step as one graph
fused         CPU: a step of few large operations
packed, int8  CPU: the matrices laid out for it, as they are or as 8-bit integers
kernels/      the C++ behind the three
"""
