"""Array types and the glossary of dimension names used in every signature.

==========  ================================================================================================
``b``       rows of a batch (packed sequences in training, requests while sampling)
``s``       positions of a token sequence; ``t`` is the key/value side when it differs from the query side
``d``       width of the residual stream
``f``       width of a feed-forward layer
``h``       query heads; ``k`` key/value heads; ``g`` query heads per key/value head; ``e`` head width
``v``       vocabulary rows
``n``       patch tokens of an image; ``p`` values of one patch
``l``       stacked layers
``rows``    height of a picture or grid in cells, ``cols`` its width; pictures are channels-last
==========  ================================================================================================
"""

from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, Shaped, UInt8

__all__ = ["Array", "Bool", "Float", "Int", "PRNGKeyArray", "Shaped", "UInt8"]
