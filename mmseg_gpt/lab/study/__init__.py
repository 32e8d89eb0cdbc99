"""The study: methods compared on photographs with a real pretrained ViT, at equal budgets."""
