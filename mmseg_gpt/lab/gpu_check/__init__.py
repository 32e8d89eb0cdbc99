"""What only a GPU can tell, in one command of at most 8 minutes: ``tools/gpu_check.py``.

:mod:`.parts` keeps to the time and loses nothing, :mod:`.numbers` compares what is computed, :mod:`.speed` measures,
and :mod:`.runs` trains and tests. :mod:`.report` writes all of it as a page.
"""
