"""What only training needs of data: augmentation, datasets and samplers."""
