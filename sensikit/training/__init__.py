"""What no framework knows of training: noise, losses, and the recipes of the paper's systems."""
