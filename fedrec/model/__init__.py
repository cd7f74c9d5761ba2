"""What everyone may see: items, text tower, ranking layer, packs."""
