"""The code that needs mmpretrain. Importing ``.datasets`` registers its datasets."""
