"""What needs mmpretrain, all in one place: importing ``.datasets`` registers it."""
