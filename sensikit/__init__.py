"""sensikit: which parameters of a multilingual model belong to which language.

The public names stand in __init__.pyi, for type checkers too. Each is loaded when it is first used, so importing
sensikit is quick and needs neither fairseq nor transformers. `sensikit.report` is the function; what else its package
holds is imported from there: `from sensikit.report import tables`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
