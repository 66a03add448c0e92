"""sensikit: which parameters of a multilingual model belong to which language.

The public names stand in __init__.pyi, for type checkers too. Each is loaded when it is first used, so importing
sensikit is quick and needs neither fairseq nor transformers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
