"""Lets ``python -m mmseg_gpt`` do what ``mmseg-gpt`` does, as torchrun needs it."""

from mmseg_gpt_cli import main

if __name__ == '__main__':
    main()
