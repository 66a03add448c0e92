"""Translation quality: decoding, BLEU and chrF++, systems side by side, significance."""
